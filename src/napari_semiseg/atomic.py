"""Files that are there whole or not at all, and the checks that come before writing and reading them.

A file is written under a temporary name in the folder where it will lie, flushed to the disk, moved onto its name,
and the folder is flushed too. Whatever dies in between, a reader finds the old bytes or the new ones.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from napari_semiseg.errors import InputError

MAX_JSON_BYTES = 16 * 2**20
"""Largest JSON file that is read. A project of 100,000 tiles is some 15 MB; images never lie in JSON."""
MAX_JSON_DEPTH = 64
"""Deepest nesting of lists and objects in it."""

_RETRY_DELAYS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Waits before a move is tried again: virus scanners hold a new file for some tens of milliseconds."""

_TEMPORARY = ".semiseg-"
_DIGITS = 8  # of the hash of a name, by which its temporary files are known again
_REASONS = {
    errno.ENOSPC: "the disk is full: free some space and try again",
    errno.EDQUOT: "your quota on that disk is used up: free some space and try again",
    errno.EACCES: "it is not allowed there: choose another place or ask for the right to write",
    errno.EPERM: "it is not allowed there: choose another place or ask for the right to write",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.EIO: "the disk reports an error: check it, and copy what lies there to another one",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.ENOENT: "it is not there: check the name",
    errno.ENOTDIR: "a part of that path is a file, not a folder: choose another place",
    errno.EISDIR: "a folder has that name: choose another name",
    errno.ELOOP: "it is a link that leads back to itself: remove the link",
    errno.EMFILE: "too many files are open: close other programs and try again",
    errno.ESTALE: "the network drive lost it: connect the drive again",
}


def said(error: OSError, doing: str) -> InputError:
    """Turn an operating system's error into one sentence for the user.

    Parameters
    ----------
    error : OSError
        What was raised.
    doing : str
        What could not be done, with the path, to go before a reason: "'/data/a.json' cannot be read".
    """
    reason = _REASONS.get(error.errno or 0, f"{(error.strerror or str(error)).lower()}: choose another place")
    return InputError(f"{doing}, because {reason}.")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file, so that a reader finds the old bytes or the new ones and nothing between.

    Raises
    ------
    InputError
        If the disk is full, the folder is missing or not writable, or a folder has that name.
    """
    with staged(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file of UTF-8 text; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, obj: Any) -> None:
    """Write a whole JSON file, indented; see `write_bytes`.

    Raises
    ------
    ValueError, TypeError
        If `obj` holds NaN, infinity or something that JSON does not know.
    """
    text = json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:  # half a character, as in file names of other encodings: only an escape can hold it
        data = (json.dumps(obj, indent=1, allow_nan=False) + "\n").encode("ascii")
    write_bytes(path, data)


@contextlib.contextmanager
def staged(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, and move what was written there onto `path` at the end.

    For writers that want a path, such as those of TIFF files. If the body raises, `path` stays as it was.

    Yields
    ------
    Path
        A path that does not exist yet, with the same suffix.

    Raises
    ------
    InputError
        In place of any OSError of the body or of the move.
    """
    path = Path(path)
    if "\0" in str(path):
        raise InputError(f"{quoted(path)} is no name that a file can have: choose another one.")
    temporary = path.parent / f"{_prefix(path)}{secrets.token_hex(6)}.tmp{_short_suffix(path)}"
    try:
        yield temporary
        replace(temporary, path)
    except OSError as error:
        raise said(error, f"{quoted(path)} cannot be written") from error
    finally:
        with contextlib.suppress(OSError):  # the move has taken it away, or nothing can be done
            temporary.unlink(missing_ok=True)


def replace(tmp: str | Path, path: str | Path) -> None:
    """Flush the file `tmp` to the disk, move it onto `path`, and flush the folder.

    Both lie in the same folder. A PermissionError is taken for a virus scanner's or a reader's short hold and retried
    for half a second.

    Raises
    ------
    InputError
        If that cannot be done; `path` is then as it was.
    """
    try:
        with Path(tmp).open("rb+") as file:
            sync(file.fileno())
        _move(tmp, path)
        sync_folder(Path(path).parent)
    except OSError as error:
        raise said(error, f"{quoted(path)} cannot be written") from error


def _move(source: str | Path, target: str | Path) -> None:
    for delay in _RETRY_DELAYS_S:
        try:
            Path(source).replace(target)
        except PermissionError:
            time.sleep(delay)
        else:
            return
    Path(source).replace(target)


def sync(descriptor: int) -> None:
    """Flush an open file to the disk itself, past the caches of the system and, on macOS, of the drive."""
    full = getattr(_fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            _fcntl.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.ENOTTY}:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_folder(folder: str | Path) -> None:
    """Flush a folder's list of names, so that a new name outlives a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # some network drives have none either
            raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data`; the system may take it in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def temporaries(folder: str | Path) -> list[Path]:
    """Return the temporary files that a killed writer left in `folder`, sorted. Only ours are named so."""
    return sorted(path for path in Path(folder).glob(f"{_TEMPORARY}*.tmp*") if path.is_file() and not path.is_symlink())


def remove_temporaries(path: str | Path) -> None:
    """Remove what killed writers of one file have left beside it. Its only writer, who holds a `Claim`, may do that."""
    with contextlib.suppress(OSError):  # what cannot be removed does no harm
        for left in Path(path).parent.glob(f"{_prefix(Path(path))}*.tmp*"):
            left.unlink(missing_ok=True)


def free_bytes(path: str | Path) -> int:
    """Return the free space, in bytes, of the disk where `path` lies or would lie.

    Raises
    ------
    InputError
        If no part of the path exists.
    """
    try:
        place = Path(path).absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        return shutil.disk_usage(place).free
    except OSError as error:
        raise said(error, f"The free space at {quoted(path)} cannot be found") from error


def require_space(path: str | Path, bytes: int, for_what: str) -> None:  # noqa: A002  (the unit is the name)
    """Check that something will fit before it is begun.

    Parameters
    ----------
    path : path
        Where it will lie; it need not exist.
    bytes : int
        Its size.
    for_what : str
        Its name in the message: "the checkpoints".

    Raises
    ------
    InputError
        If there is less room than that.
    """
    free = free_bytes(path)
    if free < bytes:
        raise InputError(
            f"There is not enough room for {for_what} at {quoted(path)}: "
            f"{size_text(bytes)} are needed and {size_text(free)} are free, "
            "so free some space or choose another place."
        )


def require_writable(folder: str | Path) -> None:
    """Check that files can be made in an existing folder, by making one.

    Raises
    ------
    InputError
        If they cannot, or it is no folder.
    """
    folder = Path(folder)
    probe = folder / f"{_TEMPORARY}{secrets.token_hex(6)}.tmp"
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise InputError(f"{quoted(folder)} is no folder: choose a folder to write into.")
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        probe.unlink()
    except OSError as error:
        raise said(error, f"Nothing can be written into {quoted(folder)}") from error


def make_folder(folder: str | Path) -> None:
    """Make a folder, and those above it, where it is missing, and check that files can be made in it.

    Raises
    ------
    InputError
        If it cannot be made, is no folder, or nothing can be written into it.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise said(error, f"The folder {quoted(folder)} cannot be made") from error
    require_writable(folder)


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, and refuse what is none: a folder, a device, or a pipe that would wait forever.

    Yields
    ------
    binary file

    Raises
    ------
    InputError
        If it is missing, no regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except ValueError:  # a NUL in the name
        raise InputError(f"{quoted(path)} is no name that a file can have: choose another one.") from None
    except OSError as error:
        raise said(error, f"{quoted(path)} cannot be read") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{quoted(path)} is no ordinary file: give a file.")
    with os.fdopen(descriptor, "rb") as file:
        try:
            yield file
        except OSError as error:
            raise said(error, f"{quoted(path)} cannot be read") from error


def read_json(path: str | Path, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file that anyone may have written.

    Parameters
    ----------
    path : path
        A regular file; a pipe or a folder is refused without waiting.
    max_bytes : int
        Largest size, checked before anything is read.

    Returns
    -------
    object
        What `json.load` returns.

    Raises
    ------
    InputError
        If the file is missing, too large, no UTF-8, no JSON, nested too deeply, repeats a key in an object, or holds
        NaN or infinity.
    """
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(
            f"{quoted(path)} is larger than {size_text(max_bytes)}, which no file of its kind is: give another file."
        )
    return parse_json(data, f"{quoted(path)}")


def parse_json(data: bytes, where: str) -> Any:
    """Parse JSON bytes under the limits of `read_json`; `where` names them in messages."""
    try:
        parsed = json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_distinct, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError:
        raise InputError(f"{where} is nested too deeply: give another file.") from None
    except (ValueError, UnicodeDecodeError) as error:  # JSONDecodeError and InputError are ValueErrors too
        reason = str(error) if isinstance(error, InputError) else f"it holds no valid JSON ({_first_words(error)})"
        raise InputError(f"{where} cannot be read, because {reason}: give another file or a copy of it.") from None
    if _depth_exceeds(parsed, MAX_JSON_DEPTH):
        raise InputError(f"{where} is nested too deeply: give another file.")
    return parsed


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(count: float) -> str:
    """Return a number of bytes as people say it.

    Examples
    --------
    >>> size_text(1_500_000)
    '1.5 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InputError(f"it gives {_plain(repr(twice))} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise InputError(f"it holds {name}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InputError(f"it holds {text:.20}, which is too large a number")
    return value


def _depth_exceeds(parsed: Any, limit: int) -> bool:
    level: list[Any] = [parsed]
    for _ in range(limit):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
        if not deeper:
            return False
        level = deeper
    return any(isinstance(item, (dict, list)) for item in level)


def _first_words(error: Exception) -> str:
    return _plain(str(error))[:80].rstrip(" .")


def quoted(path: str | Path) -> str:
    """Return a path in quotes for a message: on one line, and printable on any console, whatever the name holds."""
    return f"'{_plain(str(path))}'"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _prefix(path: Path) -> str:
    """Return how the temporary files of one path begin, those of a temporary file as itself."""
    if path.name.startswith(_TEMPORARY):
        return path.name[: len(_TEMPORARY) + _DIGITS + 1]
    return f"{_TEMPORARY}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:_DIGITS]}-"


def _short_suffix(path: Path) -> str:
    """Return the suffix, which some writers choose a format by, unless it is so long that no suffix was meant."""
    return path.suffix if len(path.suffix) <= len(".safetensors") else ""


_BINARY = getattr(os, "O_BINARY", 0)
try:
    import fcntl as _fcntl
except ImportError:  # Windows
    _fcntl = None  # type: ignore[assignment]
