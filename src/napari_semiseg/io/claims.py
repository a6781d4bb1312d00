"""Who writes where: one writer at a time for each target, on this machine."""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from napari_semiseg.errors import InputError


class Claim:
    """The right to write to a path, held until `release` or the end of the process, however it ends.

    The system's file locks are used, on a file in the folder for temporary files: nothing is left beside the user's
    files, and a killed process leaves no claim behind.

    Parameters
    ----------
    path : str or Path
        File or folder that will be written.

    Raises
    ------
    InputError
        If someone else, or another writer of this process, holds it.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(tempfile.gettempdir()) / f"napari-semiseg-{_user()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        name = hashlib.sha256(os.path.normcase(Path(path).resolve()).encode("utf-8", "surrogateescape")).hexdigest()
        self._lock = FileLock(folder / f"{name[:32]}.lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"'{path}' is being written by another job: wait for its end or choose another name."
            ) from None

    def release(self) -> None:
        """Let others write; more than once does no harm."""
        self._lock.release()


def check_target(target: str | Path, sources: list[str | Path]) -> None:
    """Refuse a target that is, contains or lies in something that is being read.

    Raises
    ------
    InputError
    """
    wanted = Path(target).resolve()
    for source in sources:
        read = Path(source).resolve()
        if wanted == read or wanted in read.parents or read in wanted.parents:
            raise InputError(
                f"'{target}' cannot be written, because '{source}' is being read: choose another name or folder."
            )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return str(os.getuid()) if hasattr(os, "getuid") else "user"
