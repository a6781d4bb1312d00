"""From what a user names to a file: `slide.svs`, `stack.tif[z=4]`, `two.tif[c=1]`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from napari_semiseg.errors import InputError

_CHOICE = re.compile(r"^(?P<path>.+)\[(?P<choice>[A-Za-z]=\d{1,9}(?:,[A-Za-z]=\d{1,9})*)\]$", re.DOTALL)
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]{1,15}://")
_DOUBLE = (".ome.tiff", ".ome.tif", ".ome.zarr", ".tar.gz")


@dataclass(frozen=True)
class Location:
    """Where an image lies, and which plane of it is meant.

    Attributes
    ----------
    path : str
        A file's or folder's path, or a URL.
    chosen : mapping of str to int
        Index along axes that an image has not (from 0), by lower-case letter: ``c`` channel, ``z`` plane, ``t`` time,
        ``s`` series.
    """

    path: str
    chosen: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_url(self) -> bool:
        """Whether `path` is a URL."""
        return bool(_URL.match(self.path))

    @property
    def name(self) -> str:
        """File name without its extension; `.ome.tif` and `.ome.zarr` count as one extension."""
        return stem(self.path)

    @property
    def text(self) -> str:
        """What `locate` makes this of."""
        return f"{self.path}{_bracketed(self.chosen)}" if self.chosen else self.path

    def with_choice(self, letter: str) -> str:
        """Return what to write to choose the first along an axis."""
        return Path(self.path).name + _bracketed({**self.chosen, letter: 0})

    def in_series(self, number: int) -> Location:
        """Return it with that series chosen, unless one is chosen already."""
        return Location(self.path, {"s": number, **self.chosen})


def _bracketed(chosen: Mapping[str, int]) -> str:
    return f"[{','.join(f'{key}={value}' for key, value in chosen.items())}]"


def locate(source: str | Path) -> Location:
    """Split a choice in brackets from a path.

    The choice is the last thing in `source`, one or more of ``letter=index`` with commas between:
    ``stack.tif[z=4,c=1]``. A file whose name really ends in such brackets is taken as it is.
    """
    text = os.fspath(source)
    match = _CHOICE.match(text)
    if match is None or ("://" not in text and os.path.lexists(text)):
        return Location(text)
    pairs = (pair.split("=") for pair in match["choice"].split(","))
    return Location(match["path"], {letter.lower(): int(index) for letter, index in pairs})


def stem(path: str | Path) -> str:
    """Return the file name without extension: ``"a"`` for ``/x/a.ome.tif``."""
    name = Path(str(path).rstrip("/\\")).name
    for ending in _DOUBLE:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return Path(name).stem or name


def check_file(path: str | Path) -> Path:
    """Make sure that `path` is a plain file that can be read: no folder, pipe or device, which might never answer.

    Raises
    ------
    InputError
    """
    path = Path(path)
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise InputError(f"'{path}' is a folder where an image file is expected: name a file in it.")
    if not stat.S_ISREG(mode):
        raise InputError(f"'{path}' is no plain file but a pipe or device: copy the image to a file first.")
    if not os.access(path, os.R_OK):
        raise InputError(f"'{path}' may not be read: change its permissions or copy it to a folder of your own.")
    if not path.stat().st_size:
        raise InputError(f"'{path}' is empty (0 bytes): copy it again from its source.")
    return path


def is_folder(path: str | Path) -> bool:
    """Whether a folder lies there; not where the name is impossible."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def check_folder(path: str | Path) -> Path:
    """Make sure that `path` is a folder that can be listed.

    Raises
    ------
    InputError
    """
    path = Path(path)
    if not stat.S_ISDIR(_mode(path)):
        raise InputError(f"'{path}' is a file where a folder is expected: name the folder.")
    if not os.access(path, os.R_OK | os.X_OK):
        raise InputError(f"'{path}' may not be read: change its permissions or copy it to a folder of your own.")
    return path


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"There is no file '{path}': check the name and that its disk is connected.") from None
    except (OSError, ValueError) as error:  # symlink loop, name too long, null byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"'{str(path)[:200]}' cannot be opened ({reason}): check the name.") from None
