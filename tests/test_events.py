from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_semiseg import events
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    MAX_COMMAND,
    MAX_EVENT,
    Command,
    Event,
    Finished,
    Focus,
    Heartbeat,
    Lines,
    PreviewWritten,
    Started,
    StepDone,
    Stop,
    Written,
    decode_command,
    decode_event,
    encode,
)

_REPEATABLE = settings(derandomize=True, deadline=None)

_WHOLE = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too: file names have them
_PLAIN = st.recursive(
    st.none() | st.booleans() | _WHOLE | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_FIELDS = {
    "float": st.floats(),
    "int": _WHOLE,
    "int | None": st.none() | _WHOLE,
    "bool": st.booleans(),
    "str": _TEXT,
    "dict[str, Any]": st.dictionaries(_TEXT, _PLAIN, max_size=3),
    "dict[str, float]": st.dictionaries(_TEXT, st.floats(), max_size=3),
    "dict[str, str]": st.dictionaries(_TEXT, _TEXT, max_size=3),
    "list[int]": st.lists(_WHOLE, max_size=3),
    "list[str]": st.lists(_TEXT, max_size=3),
    "list[dict[str, Any]]": st.lists(st.dictionaries(_TEXT, _PLAIN, max_size=3), max_size=3),
    "tuple[int, int, int, int]": st.tuples(_WHOLE, _WHOLE, _WHOLE, _WHOLE),
}


def _any_of(base: type) -> st.SearchStrategy[Any]:
    return st.one_of(
        [
            st.builds(kind, **{field.name: _FIELDS[str(field.type)] for field in dataclasses.fields(kind)})
            for kind in base.__subclasses__()
        ]
    )


def _same(first: Any, second: Any) -> bool:
    """Equality that takes NaN for NaN, and infinities for NaN: JSON has neither."""
    if isinstance(first, float) and not math.isfinite(first):
        return isinstance(second, float) and math.isnan(second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(first[name], second[name]) for name in first)
    return bool(first == second)


@_REPEATABLE
@given(event=_any_of(Event), job=_TEXT)
def test_an_event_comes_back_as_it_was_sent(event, job):
    line = encode(event, job)

    assert line.isascii()
    assert "\n" not in line
    back, in_job = decode_event(line)
    assert type(back) is type(event)
    assert in_job == job
    assert _same(vars(event), vars(back))


@_REPEATABLE
@given(command=_any_of(Command))
def test_a_command_comes_back_as_it_was_sent(command):
    back = decode_command(encode(command))

    assert type(back) is type(command)
    assert _same(vars(command), vars(back))


_SENT = [encode(StepDone(3, {"sup": 0.5}), "train-1"), encode(Heartbeat(1)), encode(Finished("train"))]


@settings(_REPEATABLE, max_examples=400)
@given(
    line=st.one_of(
        _TEXT,
        st.binary(max_size=200).map(lambda data: data.decode("utf-8", "replace")),
        _PLAIN.map(json.dumps),
        st.builds(
            lambda kind, body: json.dumps({"event": kind, **body}),
            st.sampled_from([*events._Codec.kinds["event"], "Unknown"]),
            st.dictionaries(st.sampled_from(["step", "losses", "what", "box", "path", "tiles", "in_job"]), _PLAIN),
        ),
        st.builds(
            lambda line, at, byte: line[:at] + byte + line[at + 1 :],
            st.sampled_from(_SENT),
            st.integers(0, 60),
            st.characters(),
        ),
        st.builds(lambda line, length: line[:length], st.sampled_from(_SENT), st.integers(0, 80)),
    )
)
@example(line="[" * 100_000)
@example(line="9" * 5_000)
@example(line='{"event": "StepDone", "step": 1, "losses": {"sup": 1' + "0" * 400 + "}}")
@example(line='{"event": "StepDone", "step": 1' + "0" * 30 + ', "losses": {}}')
@example(line='{"event": ["StepDone"], "step": 1, "losses": {}}')
@example(line='{"event": "Heartbeat", "rss_bytes": true}')
def test_a_line_is_an_event_of_the_declared_types_or_refused_in_a_sentence(line):
    try:
        event, job = decode_event(line)
    except InputError as refusal:
        event, job, sentence = None, "", str(refusal)

    if event is None:
        assert 10 < len(sentence) < 400
    else:
        back, in_job = decode_event(encode(event, job))
        assert in_job == job
        assert _same(vars(event), vars(back))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"event": "StepDone", "losses": {}}', "step"),
        ('{"event": "Heartbeat", "rss_bytes": 1, "more": 2}', "more"),
        ('{"event": "Heartbeat", "rss_bytes": "1"}', "int"),
        ('{"event": "Validated", "step": 1, "scores": {}, "best": "yes"}', "bool"),
        ('{"event": "Suggested", "tiles": "abc"}', "list"),
        ('{"event": "Ready", "pid": 1, "versions": {"torch": 2}}', "str"),
        ('{"event": "StepDone", "step": 1, "losses": {"sup": "0.5"}}', "int"),
        ('{"event": "Nonsense"}', "Nonsense"),
        ("Downloading weights: 100%", "Downloading"),
    ],
)
def test_a_wrong_field_is_refused_and_named(line, why):
    with pytest.raises(InputError, match=why):
        decode_event(line)


@pytest.mark.parametrize(("decode", "longest"), [(decode_event, MAX_EVENT), (decode_command, MAX_COMMAND)])
def test_a_line_that_is_too_long_is_refused_before_it_is_parsed(decode, longest):
    with pytest.raises(InputError, match=f"longer than {longest}"):
        decode("[" * (longest + 1))


def test_numbers_of_numpy_and_paths_travel_as_plain_values():
    event = Written(
        "csv", "out.csv", {"rows": np.int64(7), "dice": np.float32(0.5), "ok": np.bool_(True), "at": Path("a")}
    )

    back, _ = decode_event(encode(event))

    assert back == Written("csv", "out.csv", {"rows": 7, "dice": 0.5, "ok": True, "at": "a"})


def test_infinities_and_nan_of_any_library_become_null():
    event = StepDone(1, {"sup": np.float32("inf"), "con": float("nan"), "aux": np.float64("-inf")})

    assert json.loads(encode(event))["losses"] == {"sup": None, "con": None, "aux": None}


def test_rectangles_come_back_as_tuples():
    focus = decode_command(encode(Focus(0, (1, 2, 3, 4))))
    preview, _ = decode_event(encode(PreviewWritten(5, "p.npy", 0, (1, 2, 3, 4), 4)))

    assert focus == Focus(0, (1, 2, 3, 4))
    assert preview == PreviewWritten(5, "p.npy", 0, (1, 2, 3, 4), 4)


def test_an_event_is_no_command():
    with pytest.raises(InputError, match="not a command"):
        decode_command(encode(Started("train")))
    with pytest.raises(InputError, match="not an event"):
        decode_event(encode(Stop()))


@_REPEATABLE
@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\n\r")).map(str.strip), max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_lines_do_not_depend_on_how_their_bytes_arrive(texts, cuts):
    texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    stream = "".join(text + "\n" for text in texts).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})

    lines = Lines(MAX_EVENT)
    read = [line for start, stop in itertools.pairwise(edges) for line in lines.feed(stream[start:stop])]

    assert read == [text for text in texts if text.strip()]


def test_a_line_without_end_takes_bounded_memory_and_the_next_line_is_read():
    lines = Lines(longest=100)

    assert [*lines.feed(b"x" * 1_000)] == []
    for _ in range(1_000):
        assert [*lines.feed(b"x" * 1_000)] == []
    assert len(lines._part) == 101
    assert [*lines.feed(b"\n" + encode(Heartbeat(1)).encode() + b"\r\n")] == ["x" * 101, encode(Heartbeat(1))]


def test_the_tail_of_a_broken_off_line_is_kept_back():
    lines = Lines(MAX_EVENT)

    assert [*lines.feed(b'{"event": "Heartbeat", "rss')] == []
