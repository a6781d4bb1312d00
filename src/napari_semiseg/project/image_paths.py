"""Where the images of a project lie, and names that every system can hold."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Protocol

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.project.schema import RESERVED_NAMES, ImageSource

_CHOICE = re.compile(r"\[([^\[\]]*)\]$")  # a part of a file may be named in brackets
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


class OpenedImage(Protocol):
    """What an opened image says of itself, as `io.images.Image` does."""

    @property
    def source(self) -> str:
        """Path or URL."""
        ...

    @property
    def name(self) -> str:
        """Stem."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of level 0."""
        ...

    @property
    def mpp(self) -> float | None:
        """Size of a pixel, in µm."""
        ...


def stored_path(root: Path, source: str | Path) -> str:
    """Return how a project in the folder `root` names an image: relative where it lies beside it, as both can move.

    Raises
    ------
    InputError
        If its name is not written in Unicode.
    """
    text = str(source)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"The name of {atomic.quoted(text)} is not written in Unicode: rename the file.") from None
    if is_url(text):
        return text
    path = Path(os.path.normpath(Path(text).absolute()))
    if path.is_relative_to(root.parent):
        return Path(os.path.relpath(path, root)).as_posix()
    return str(path)


def located(root: Path, path: str) -> str:
    """Return where an image lies that a project in the folder `root` names so."""
    return path if is_url(path) else os.path.normpath(root / path)


def with_series(path: str, series: int) -> str:
    """Name one of several images of a file in brackets, unless it is the first or one is named already."""
    found = _CHOICE.search(path)
    chosen = found[1].split(",") if found else []
    if not series or any(choice.lower().startswith("s=") for choice in chosen):
        return path
    return f"{_CHOICE.sub('', path)}[{','.join([f's={series}', *chosen])}]"


def image_exists(folder: Path, source: ImageSource) -> bool:
    """Whether the file of an image is there. Of a URL nothing is known, so it is taken to be."""
    if is_url(source.path):
        return True
    try:
        path = folder / source.path
        return path.exists() or Path(_CHOICE.sub("", str(path))).exists()
    except OSError:
        return False


def is_url(path: str) -> bool:
    """Whether an image lies elsewhere than in a file system."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", path) is not None


def distinct_name(name: str, others: list[str]) -> str:
    """Return `name` as a file can be named by it on any system, and told apart from `others` on any system."""
    clean = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", name)).strip(". ")[:120] or "image"
    if clean.split(".")[0].lower() in RESERVED_NAMES:
        clean = f"_{clean}"
    taken = {unicodedata.normalize("NFC", other).casefold() for other in others}
    candidate, count = clean, 1
    while candidate.casefold() in taken:
        count += 1
        candidate = f"{clean} ({count})"
    return candidate


def require_portable(name: str) -> None:
    """Check a file's name against the rules of every common system.

    Raises
    ------
    InputError
        If one of them refuses it.
    """
    if not name or name != name.rstrip(". ") or _FORBIDDEN.search(name) or name.split(".")[0].lower() in RESERVED_NAMES:
        raise InputError(
            f"{atomic.quoted(name)} is no name that every system allows: choose one "
            'without the characters < > : " / \\ | ? *, without a dot or space '
            "at the end, and other than CON, PRN, AUX, NUL, COM1 or LPT1."
        )
