"""The file that carries a look inside a method."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from napari_semiseg.errors import InputError
from napari_semiseg.io.diagnostics import (
    Amount,
    Boxes,
    Categories,
    Colors,
    Look,
    Meaning,
    Place,
    Plot,
    read_look,
    write_look,
)

MEANINGS = {1: Meaning("mixed patch", (1, 2, 3))}
LOOK = Look(
    "method",
    120,
    Place(16.5, 8.0, 64, 32, 2.0),
    {
        "patches": Categories(np.arange(6, dtype=np.uint8).reshape(2, 3), MEANINGS),
        "score": Amount(
            np.array([[np.nan, *np.linspace(-1, 3, 8)[1:4]], np.linspace(-1, 3, 8)[4:]]), 0.0, 2.0, "share"
        ),
        "features": Colors(np.full((2, 2, 3), 7, np.uint8), "components"),
        "drawn": Boxes(np.array([[0, 1, 2, 3.5]]), np.array([1], np.uint8), MEANINGS),
        "landscape": Plot(np.zeros((4, 5, 3), np.uint8), "points"),
    },
    {"Dice": 0.5},
)


def test_what_is_read_is_what_was_written_amounts_in_254_steps(tmp_path: Path) -> None:
    write_look(tmp_path / "a" / "look.npz", LOOK)
    read = read_look(tmp_path / "a" / "look.npz")

    assert (read.show, read.step, read.place, read.numbers) == (LOOK.show, LOOK.step, LOOK.place, LOOK.numbers)
    assert list(read.maps) == list(LOOK.maps)
    assert read.maps["patches"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read.maps["patches"].meanings == MEANINGS
    wanted = np.linspace(-1, 3, 8).clip(0, 2).reshape(2, 4)
    wanted[0, 0] = np.nan
    assert read.maps["score"].values == pytest.approx(wanted, abs=2 / 254, nan_ok=True)
    assert read.maps["features"].values.tolist() == LOOK.maps["features"].values.tolist()
    assert read.maps["drawn"].corners.tolist() == [[0, 1, 2, 3.5]]
    assert read.maps["landscape"].values.shape == (4, 5, 3)


def test_no_boxes_are_boxes_too(tmp_path: Path) -> None:
    none = Boxes(np.zeros((0, 4)), np.zeros(0, np.uint8), MEANINGS)
    write_look(tmp_path / "look.npz", Look("method", 0, Place(0, 0, 8, 8), {"drawn": none}))

    assert read_look(tmp_path / "look.npz").maps["drawn"].corners.shape == (0, 4)


def damaged(path: Path, **arrays: np.ndarray) -> Path:
    write_look(path, LOOK)
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files} | arrays
    buffer = io.BytesIO()
    np.savez(buffer, **kept)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    "arrays",
    [
        {"0-values": np.zeros((2, 3), np.float64)},
        {"0-values": np.zeros((2, 3, 3), np.uint8)},
        {"2-values": np.zeros((2, 3), np.uint8)},
        {"3-corners": np.full((1, 4), np.nan, np.float32)},
        {"3-kinds": np.zeros(2, np.uint8)},
        {"card": np.frombuffer(b"{", np.uint8)},
        {"card": np.frombuffer(b'{"show": "x"}', np.uint8)},
        {"0-values": np.array([{"an": "object"}], dtype=object)},
    ],
)
def test_what_is_no_look_is_refused_in_a_sentence(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError) as refusal:
        read_look(damaged(tmp_path / "look.npz", **arrays))
    assert "\n" not in str(refusal.value)


def test_a_file_that_unfolds_to_more_than_can_be_shown_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "look.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("card.npy", "w") as entry:
        for _ in range(300):
            entry.write(bytes(1_000_000))
    assert path.stat().st_size < 1_000_000

    with pytest.raises(InputError, match="larger than"):
        read_look(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_a_torn_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "look.npz").write_bytes(content)
    with pytest.raises(InputError, match="ask for it again"):
        read_look(tmp_path / "look.npz")
