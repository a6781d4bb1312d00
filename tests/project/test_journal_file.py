"""The journal's format: what was painted comes back, and any truncation leaves a prefix."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from napari_semiseg.blocks import Box
from napari_semiseg.errors import InputError
from napari_semiseg.project import journal_file
from napari_semiseg.project.journal_file import JournalFile, replay
from napari_semiseg.project.strokes import DamagedStroke, Patch, decode, encode
from napari_semiseg.project.tile_annotation import TileAnnotation

SHAPE = (13, 17)
fuzz = settings(
    derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def strokes(draw, shape=SHAPE):
    """A stroke of one or two layers: noise, or a few values in runs."""
    patches = []
    for layer in draw(st.lists(st.sampled_from(["instance", "class"]), min_size=1, max_size=2, unique=True)):
        y0, x0 = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        box = Box(y0, x0, draw(st.integers(y0 + 1, shape[0])), draw(st.integers(x0 + 1, shape[1])))
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        most = draw(st.sampled_from([1, 3, 254])) if layer == "class" else draw(st.sampled_from([1, 3, 2**31 - 1]))
        values = random.integers(0, most, box.shape, endpoint=True).astype(np.uint8 if layer == "class" else np.uint32)
        patches.append(Patch.of(layer, box, values))
    return tuple(patches)


def painted(all_strokes):
    """The annotation after each number of strokes."""
    now = TileAnnotation.empty(SHAPE)
    states = [now.copy()]
    for stroke in all_strokes:
        for patch in stroke:
            patch.apply(now)
        states.append(now.copy())
    return states


def written(path, all_strokes, shape=SHAPE):
    """Write a journal, and return where each stroke ends, in bytes."""
    path.unlink(missing_ok=True)
    ends = []
    with JournalFile(path, shape) as journal:
        for stroke in all_strokes:
            journal.append(encode(stroke))
            ends.append(journal.bytes)
    return ends


def state_of(path):
    return painted(replay(path, SHAPE).strokes)[-1]


@fuzz
@given(st.lists(strokes(), max_size=8))
def test_a_replay_gives_the_final_labels(tmp_path, all_strokes):
    written(tmp_path / "j", all_strokes)
    found = replay(tmp_path / "j", SHAPE)
    assert found.torn_bytes == 0
    assert len(found.strokes) == len(all_strokes)
    assert painted(found.strokes)[-1].equals(painted(all_strokes)[-1])


@fuzz
@given(st.lists(strokes(), min_size=1, max_size=6), st.data())
def test_any_truncation_is_a_prefix_and_the_longest_one_that_is_whole(tmp_path, all_strokes, data):
    ends = written(tmp_path / "j", all_strokes)
    length = data.draw(st.integers(0, ends[-1]))
    os.truncate(tmp_path / "j", length)

    whole = sum(end <= length for end in ends)
    found = replay(tmp_path / "j", SHAPE)
    assert len(found.strokes) == whole
    assert state_of(tmp_path / "j").equals(painted(all_strokes)[whole])


def test_every_single_truncation_of_a_journal_is_a_prefix(tmp_path):
    random = np.random.default_rng(3)
    boxes = [Box(0, 0, 4, 4), Box(2, 2, 6, 7), Box(5, 0, 6, 17)]
    all_strokes = [
        (
            Patch.of("instance", box, random.integers(0, 9, box.shape)),
            Patch.of("class", box, random.integers(0, 3, box.shape)),
        )
        for box in boxes
    ]
    ends = written(tmp_path / "j", all_strokes)
    data = (tmp_path / "j").read_bytes()
    states = painted(all_strokes)
    for length in range(len(data) + 1):
        (tmp_path / "t").write_bytes(data[:length])
        assert state_of(tmp_path / "t").equals(states[sum(end <= length for end in ends)]), length


@fuzz
@given(st.lists(strokes(), min_size=1, max_size=5), st.data())
def test_damage_at_any_place_leaves_the_strokes_before_it(tmp_path, all_strokes, data):
    ends = written(tmp_path / "j", all_strokes)
    content = bytearray((tmp_path / "j").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (tmp_path / "j").write_bytes(content)

    found = replay(tmp_path / "j", SHAPE)
    assert len(found.strokes) == sum(end <= place for end in ends)
    assert found.torn_bytes > 0
    assert state_of(tmp_path / "j").equals(painted(all_strokes)[len(found.strokes)])


@fuzz
@given(st.lists(strokes(), min_size=1, max_size=3), st.binary(min_size=1, max_size=100))
@example([(Patch.of("class", Box(0, 0, 1, 1), np.ones((1, 1))),)], bytes(64))
def test_what_a_power_cut_leaves_behind_the_end_is_no_stroke(tmp_path, all_strokes, rubbish):
    ends = written(tmp_path / "j", all_strokes)
    content = (tmp_path / "j").read_bytes()
    # blocks that a file system may give again: of a longer journal with the same beginning, and of this one
    written(tmp_path / "older", [*all_strokes, all_strokes[0]])
    older = (tmp_path / "older").read_bytes()[len(content) :]
    again = content[ends[-2] if len(ends) > 1 else 0 :]
    for tail in (rubbish, bytes(500), older, again):
        (tmp_path / "j").write_bytes(content + tail)
        found = replay(tmp_path / "j", SHAPE)
        assert len(found.strokes) == len(all_strokes)
        assert found.torn_bytes == len(tail)


@fuzz
@given(st.binary(max_size=300))
def test_any_bytes_are_an_empty_journal(tmp_path, data):
    (tmp_path / "j").write_bytes(data)
    found = replay(tmp_path / "j", SHAPE)
    assert found.strokes == ()
    assert found.torn_bytes == len(data)


@fuzz
@given(st.binary(max_size=200))
def test_any_payload_is_a_stroke_inside_the_tile_or_damaged(payload):
    try:
        stroke = decode(payload, SHAPE)
    except DamagedStroke:
        return
    for patch in stroke:
        assert patch.array().shape == patch.box.shape
        assert Box.whole(SHAPE).contains(patch.box)


def test_a_stroke_that_claims_a_larger_tile_is_damaged():
    payload = encode([Patch.of("instance", Box(0, 0, 13, 18), np.ones((13, 18)))])
    assert len(decode(payload, (13, 18))) == 1
    with pytest.raises(DamagedStroke):
        decode(payload, SHAPE)


def test_a_stroke_cut_off_anywhere_is_damaged():
    payload = encode([Patch.of("instance", Box(0, 0, 3, 4), np.arange(12).reshape(3, 4))])
    for length in range(1, len(payload)):
        with pytest.raises(DamagedStroke):
            decode(payload[:length], SHAPE)


def test_a_frame_that_claims_to_be_huge_allocates_nothing(tmp_path, monkeypatch):
    written(tmp_path / "j", [])
    head = journal_file._FRAME.pack(b"\xf5J", 1, 1, 2**32 - 1, bytes(8))
    with (tmp_path / "j").open("ab") as file:
        file.write(head + bytes(100))
    import tracemalloc

    tracemalloc.start()
    found = replay(tmp_path / "j", SHAPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.torn_bytes == len(head) + 100
    assert peak < 10**6


def test_a_large_uniform_stroke_takes_few_bytes_and_noise_takes_no_more_than_it_must(tmp_path):
    whole = Box(0, 0, 1000, 1000)
    assert len(encode([Patch.of("instance", whole, np.ones(whole.shape))])) < 50
    noise = np.arange(10**6).reshape(whole.shape)
    assert len(encode([Patch.of("instance", whole, noise)])) < 8 * 10**6 + 50


def test_a_journal_of_a_newer_version_or_another_tile_is_refused_in_one_sentence(tmp_path, monkeypatch):
    written(tmp_path / "other", [], shape=(5, 5))
    with pytest.raises(InputError, match="a tile of another size"):
        replay(tmp_path / "other", SHAPE)
    monkeypatch.setattr(journal_file, "JOURNAL_VERSION", 2)
    written(tmp_path / "newer", [])
    monkeypatch.undo()
    with pytest.raises(InputError, match="newer version of napari-semiseg: update"):
        replay(tmp_path / "newer", SHAPE)


def test_a_journal_is_never_written_over(tmp_path):
    written(tmp_path / "j", [])
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(FileExistsError):
        JournalFile(tmp_path / "j", SHAPE)
    assert (tmp_path / "j").read_bytes() == before
