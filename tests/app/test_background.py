"""Work in a thread, and what becomes of its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from napari_semiseg.app.background import UNREADABLE, Background
from napari_semiseg.errors import InputError


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background("a test")
    yield background
    background.end()


def deliver(background: Background) -> None:
    assert background.drain(5)
    background.deliver()


def failing(error: Exception) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_a_file_that_cannot_be_read_is_told_and_no_more(background: Background, tmp_path: Path) -> None:
    told: list[Exception] = []
    (tmp_path / "empty.npy").touch()
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY\x01")
    for name in ("missing.npy", "empty.npy", "damaged.npy"):
        background.submit(lambda path=tmp_path / name: np.load(path, allow_pickle=False), None, told.append)
    background.submit(failing(InputError("Give another file.")), None, told.append)

    deliver(background)

    assert [isinstance(error, UNREADABLE) for error in told] == [True] * 4


def test_a_defect_is_raised_after_whoever_waited_has_heard_of_it_and_what_came_later_is_kept(
    background: Background,
) -> None:
    told: list[Exception] = []
    background.submit(failing(KeyError("a defect")), None, told.append)
    background.submit(lambda: 7, told.append)

    with pytest.raises(KeyError, match="a defect"):
        deliver(background)
    assert [type(error) for error in told] == [KeyError]

    background.deliver()
    assert told[1:] == [7]


def test_an_error_that_nobody_asked_for_is_raised_whatever_it_is(background: Background) -> None:
    background.submit(failing(OSError("The disk is gone.")))

    with pytest.raises(OSError, match="The disk is gone"):
        deliver(background)


def test_where_any_error_is_foreseen_none_is_raised() -> None:
    background, told = Background("a test", foreseen=(Exception,)), []
    background.submit(failing(KeyError("of somebody else's layer")), None, told.append)

    deliver(background)
    background.end()

    assert [type(error) for error in told] == [KeyError]
