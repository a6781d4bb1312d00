"""Whole files or none, and JSON from anyone."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_semiseg import atomic
from napari_semiseg.errors import InputError

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


def refusing(number: int, times: int, real=None):
    """Return a function that raises an OSError `times` times, and then does what it should."""
    left = [times]

    def function(*args, **keywords):
        if left[0] > 0:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*args, **keywords)

    return function


def test_a_written_file_is_there_and_nothing_else(tmp_path):
    atomic.write_bytes(tmp_path / "a.bin", b"one")
    atomic.write_bytes(tmp_path / "a.bin", b"two")
    atomic.write_text(tmp_path / "b.txt", "µm")
    atomic.write_json(tmp_path / "c.json", {"name": "naïve 🔬", "size": 0.25})

    assert (tmp_path / "a.bin").read_bytes() == b"two"
    assert (tmp_path / "b.txt").read_text("utf-8") == "µm"
    assert atomic.read_json(tmp_path / "c.json") == {"name": "naïve 🔬", "size": 0.25}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.txt", "c.json"]


def test_the_file_is_flushed_before_it_is_moved_and_the_folder_after(tmp_path, monkeypatch):
    done = []
    for module, name in ((atomic, "sync"), (atomic, "sync_folder"), (atomic, "_move")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name: (done.append(name), real(*a))[1])
    atomic.write_bytes(tmp_path / "a", b"1")
    assert done == ["sync", "_move", "sync_folder"]


@pytest.mark.fault
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_or_failing_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, number, call):
    atomic.write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(os, call, refusing(number, 99))
    with pytest.raises(InputError) as caught:
        atomic.write_bytes(tmp_path / "a", b"new")
    monkeypatch.undo()

    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert str(caught.value).startswith(f"'{tmp_path / 'a'}' cannot be written, because")
    assert str(caught.value).endswith(".")


@posix
@pytest.mark.fault
def test_a_really_full_disk_leaves_the_old_file(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        atomic.write_bytes(tmp_path / "a", b"old")
        with pytest.raises(InputError, match="disk is full"):
            atomic.write_bytes(tmp_path / "a", bytes(10**6))
        with pytest.raises(InputError, match=r"not enough room for the checkpoints .* 1\.0 MB are needed"):
            atomic.require_space(tmp_path, 10**6, "the checkpoints")
        assert (tmp_path / "a").read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_move_that_a_virus_scanner_refuses_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", refusing(errno.EACCES, 3, Path.replace))
    atomic.write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_move_that_is_refused_for_good_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, "_RETRY_DELAYS_S", (0.001,) * 6)
    monkeypatch.setattr(Path, "replace", refusing(errno.EACCES, 99))
    with pytest.raises(InputError, match="not allowed there"):
        atomic.write_bytes(tmp_path / "a", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_raises_leaves_nothing(tmp_path):
    def write_half():
        with atomic.staged(tmp_path / "a.tif") as temporary:
            assert temporary.suffix == ".tif"
            temporary.write_bytes(b"half")
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        write_half()
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.fault
def test_a_writer_that_is_killed_leaves_the_old_file_and_one_leftover(tmp_path):
    atomic.write_bytes(tmp_path / "a", b"old")
    script = """
        import os, signal, sys
        from pathlib import Path
        from napari_semiseg import atomic
        with atomic.staged(Path(sys.argv[1]) / "a") as temporary:
            temporary.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), tmp_path], check=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    left = atomic.temporaries(tmp_path)
    assert [path.read_bytes() for path in left] == [b"half"]


def test_what_killed_writers_of_a_file_have_left_is_removed_and_nothing_of_another_file(tmp_path):
    with atomic.staged(tmp_path / "a.safetensors") as one, atomic.staged(tmp_path / "b.safetensors") as other:
        one.write_bytes(b"1")
        other.write_bytes(b"2")
        with atomic.staged(one) as inner:  # what is written for something that is being written
            inner.write_bytes(b"3")
            atomic.remove_temporaries(tmp_path / "a.safetensors")
            assert atomic.temporaries(tmp_path) == [other]
            one.write_bytes(b"4")
            inner.write_bytes(b"5")
    assert (tmp_path / "a.safetensors").read_bytes() == b"5"


@posix
@pytest.mark.parametrize(
    "name",
    ["é", "e\u0301", "🔬 slide", "-rf", "con", "trailing.", "a'b\"c", "x" * 240, "new\nline"],
    ids=lambda n: n[:12],
)
def test_any_name_that_the_system_allows_works(tmp_path, name):
    atomic.write_json(tmp_path / name, [1])
    assert atomic.read_json(tmp_path / name) == [1]
    assert len(atomic.sha256_of(tmp_path / name)) == 64


def test_a_long_path_works_and_a_too_long_name_is_said(tmp_path):
    deep = tmp_path.joinpath(*["folder" * 5] * 12)
    deep.mkdir(parents=True)
    assert len(str(deep)) > 300
    atomic.write_text(deep / "a", "x")
    assert (deep / "a").read_text() == "x"
    with pytest.raises(InputError, match="the name is too long"):
        atomic.write_text(tmp_path / ("x" * 300), "x")


def _folder(path):
    path.mkdir()


def _loop(path):
    path.symlink_to(path.name)


def _pipe(path):
    os.mkfifo(path)


def _nothing(path):
    pass


@posix
@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_folder, "no ordinary file"),
        (_loop, "leads back to itself"),
        (_pipe, "no ordinary file"),
        (_nothing, "not there"),
    ],
)
def test_what_is_no_file_is_refused_without_waiting(tmp_path, make, words):
    make(tmp_path / "a.json")
    for read in (atomic.read_json, atomic.sha256_of):
        with pytest.raises(InputError, match=words):
            read(tmp_path / "a.json")


@posix
def test_a_folder_or_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="a folder has that name"):
        atomic.write_text(tmp_path / "a", "x")
    (tmp_path / "b").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        atomic.write_text(tmp_path / "b" / "c", "x")
    with pytest.raises(InputError, match="no folder"):
        atomic.require_writable(tmp_path / "b")
    with pytest.raises(InputError, match="no name that a file can have"):
        atomic.write_text(tmp_path / "a\0b", "x")
    with pytest.raises(InputError, match="no name that a file can have"):
        atomic.read_json(tmp_path / "a\0b")


@posix
def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    atomic.write_text(tmp_path / "link", "ours")
    assert (tmp_path / "target").read_text() == "theirs"
    assert (tmp_path / "link").read_text() == "ours"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "gives 'a' twice"),
        ('{"b": {"a\\n": 1, "a\\n": 2}}', "twice"),
        ('{"a": NaN}', "NaN"),
        ("[-Infinity]", "-Infinity"),
        ("[1e999]", "too large a number"),
        ("[" + "1" * 5000 + "]", "no valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "nested too deeply"),
        ("[" * 65 + "]" * 65, "nested too deeply"),
        ("", "no valid JSON"),
        ('{"a": 1', "no valid JSON"),
        ("{'a': 1}", "no valid JSON"),
        (b'{"a": "\xff"}', "no valid JSON"),
        ('["' + "x" * 2000 + '"]', r"larger than 1\.0 kB"),
    ],
    ids=lambda value: value[:10] if isinstance(value, str) else "bytes",
)
def test_json_that_nobody_should_trust_is_refused_in_one_sentence(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words) as caught:
        atomic.read_json(path, max_bytes=1000 if "1.0" in words.replace("\\", "") else 10**7)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_json_of_the_deepest_nesting_and_the_largest_size_is_read(tmp_path):
    path = tmp_path / "a.json"
    text = "[" * 64 + "]" * 64
    path.write_text(text)
    assert json.dumps(atomic.read_json(path, max_bytes=len(text))) == text
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert atomic.read_json(path) == {}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(_json)
def test_what_is_written_as_json_is_read_as_the_same(tmp_path_factory, obj):
    path = tmp_path_factory.getbasetemp() / "roundtrip.json"
    atomic.write_json(path, obj)
    assert atomic.read_json(path) == obj


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='[]{}",:\\x1eE+-.N', max_size=100).map(str.encode))
def test_any_bytes_are_json_or_refused(data):
    try:
        parsed = atomic.parse_json(data, "a file")
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        json.dumps(parsed, allow_nan=False)


def test_file_names_of_other_encodings_survive_in_json(tmp_path):
    name = os.fsdecode(b"B\xe9.tif")
    atomic.write_json(tmp_path / "a.json", name)
    assert atomic.read_json(tmp_path / "a.json") == name


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "a.json", math.nan)
    assert list(tmp_path.iterdir()) == []


def test_free_space_is_that_of_the_disk_a_new_path_would_lie_on(tmp_path):
    assert atomic.free_bytes(tmp_path / "not" / "yet") > 0
    atomic.require_space(tmp_path / "not" / "yet", 1, "a byte")
    with pytest.raises(InputError, match=r"There is not enough room for the slide at .*: 1250000\.0 TB are needed"):
        atomic.require_space(tmp_path, 1_250_000 * 10**12, "the slide")


def test_a_writable_folder_passes_and_stays_empty(tmp_path):
    atomic.require_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="not there"):
        atomic.require_writable(tmp_path / "missing")


def test_sizes_are_said_as_people_say_them():
    assert [atomic.size_text(n) for n in (0, 999, 1000, 2_500_000, 3 * 10**9, 4 * 10**12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]
