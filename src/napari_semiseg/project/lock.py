"""One process at a time writes into a project; others may look."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import secrets
import socket
import time
import uuid
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil

from napari_semiseg import atomic
from napari_semiseg.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAX_BYTES = 4096
_UNKNOWN = "unknown"
_GRACE_S = 0.2


@dataclass(frozen=True)
class Holder:
    """Who holds a project.

    Attributes
    ----------
    pid : int
    process : str
        What tells this process from a later one with the same number: boot and start time.
    host, machine : str
        Name of the computer, and what tells it from another of that name.
    since : str
        ISO time, UTC.
    token : str
        Tells two locks of one process apart.
    """

    pid: int
    process: str
    host: str
    machine: str
    since: str
    token: str

    @classmethod
    def here(cls) -> Self:
        """Return this process."""
        return cls(
            pid=os.getpid(),
            process=_process(os.getpid()) or _UNKNOWN,
            host=socket.gethostname(),
            machine=_machine(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            token=secrets.token_hex(8),
        )

    @property
    def words(self) -> str:
        """Where the project is open, and since when: "in this program since 22 Nov 16:10"."""
        try:
            since = f"{datetime.fromisoformat(self.since).astimezone():%d %b %H:%M}"
        except (ValueError, OverflowError, OSError):  # of a clock or a program that is not ours
            since = f"{self.since:.40}"
        if not self.on_this_computer:
            return f"on the computer {self.host!r:.100} since {since}"
        where = "in this program" if self.pid == os.getpid() else f"in another program (process {self.pid})"
        return f"{where} since {since}"

    @property
    def on_this_computer(self) -> bool:
        """Whether its process can be asked about here."""
        return (self.host, self.machine) == (socket.gethostname(), _machine())

    @property
    def is_dead(self) -> bool:
        """Whether its process is known to have ended. Of another computer nothing is known."""
        return self.on_this_computer and _process(self.pid) not in (self.process, _UNKNOWN)


class LockHeld(InputError):
    """The project is open elsewhere.

    Attributes
    ----------
    holder : Holder
    """

    def __init__(self, message: str, holder: Holder) -> None:
        super().__init__(message)
        self.holder = holder


class ProjectLock:
    """A lock file that names its holder, and that a dead holder cannot keep.

    Attributes
    ----------
    path : Path
    holder : Holder
        This process.
    recovered : Holder or None
        The dead process, or the one on another computer, that it was taken from.
    """

    def __init__(self, path: Path, holder: Holder, recovered: Holder | None) -> None:
        self.path = path
        self.holder = holder
        self.recovered = recovered

    @classmethod
    def acquire(cls, path: Path, *, take_over: bool = False) -> Self:
        """Take the lock.

        Parameters
        ----------
        path : Path
            The lock file; its folder is the project.
        take_over : bool
            Take it from another computer too, because the user says that nothing there has the project open any more.
            A living process on this computer always keeps it.

        Raises
        ------
        LockHeld
            If another process holds it.
        InputError
            If the file cannot be made.
        """
        holder = Holder.here()
        recovered: Holder | None = None
        for _ in range(5):
            if _created(path, holder):
                return cls(path, holder, recovered)
            stale, content = _read_when_written(path)
            if stale is not None and not stale.is_dead and (stale.on_this_computer or not take_over):
                raise _held(path, stale)
            if content is not None and _removed(path, content):
                recovered = stale or recovered
        raise InputError(f"{atomic.quoted(path)} changes all the time: close other programs that open this project.")

    @property
    def held(self) -> bool:
        """Whether the file still names this process: the user of another computer may have taken it over."""
        if self.holder.pid != os.getpid():  # a child that was forked has this object too, but not the project
            return False
        try:
            found, _ = _read(self.path)
        except InputError:
            return False
        return found == self.holder

    def release(self) -> None:
        """Give it back, if it is still ours."""
        if self.held:
            with contextlib.suppress(OSError):  # the next one finds a dead holder
                self.path.unlink()


def _created(path: Path, holder: Holder) -> bool:
    """Make the lock file with its content in one step, unless there is one."""
    temporary = path.with_name(f".semiseg-{secrets.token_hex(6)}.tmp")
    data = json.dumps(asdict(holder)).encode("ascii")
    try:
        temporary.write_bytes(data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # no hard links on this file system: not quite one step, and `_read_when_written` waits for it
            return _created_plainly(path, data)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise atomic.said(error, f"The project cannot be locked with {atomic.quoted(path)}") from error
    return True


def _created_plainly(path: Path, data: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> tuple[Holder | None, bytes | None]:
    """Return the holder, or None if the content is no lock, and the content, or None if the file is gone."""
    if not os.path.lexists(path):
        return None, None
    with atomic.open_regular(path) as file:
        content = file.read(_MAX_BYTES)
    try:
        values = json.loads(content)
        types = {field.name: int if field.type in (int, "int") else str for field in fields(Holder)}
        if values.keys() != types.keys() or any(type(values[name]) is not kind for name, kind in types.items()):
            return None, content
        return Holder(**values), content
    except (ValueError, AttributeError, RecursionError):
        return None, content


def _read_when_written(path: Path) -> tuple[Holder | None, bytes | None]:
    """Read, and again after a moment if that is no lock: another process may be writing it."""
    holder, content = _read(path)
    if holder is None and content is not None:
        time.sleep(_GRACE_S)
        return _read(path)
    return holder, content


def _removed(path: Path, content: bytes) -> bool:
    """Remove a stale lock file, unless another process was faster and has made its own by now."""
    try:
        return _moved_away(path, content) if fcntl is None else _removed_alone(path, content)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise atomic.said(error, f"The lock {atomic.quoted(path)} of a program that ended cannot be removed") from error


def _removed_alone(path: Path, content: bytes) -> bool:
    """Remove it while the system keeps others from doing so: what lies at its place is then still what was read."""
    assert fcntl is not None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody is at it
            time.sleep(_GRACE_S)
            return False
        except OSError:  # a network drive that knows no such locks
            return _moved_away(path, content)
        if file.read(_MAX_BYTES) != content or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return False
        path.unlink()
    return True


def _moved_away(path: Path, content: bytes) -> bool:
    """Remove it by moving it away, and bring it back if it was another one: a third process may come in between."""
    aside = path.with_name(f".semiseg-{secrets.token_hex(6)}.tmp")
    path.rename(aside)
    if aside.read_bytes()[:_MAX_BYTES] != content and not path.exists():
        aside.rename(path)
    aside.unlink(missing_ok=True)
    return True


def _held(path: Path, holder: Holder) -> LockHeld:
    folder = atomic.quoted(path.parent)
    if holder.on_this_computer:
        return LockHeld(
            f"The project {folder} is already open {holder.words}: close it there, or open it read-only.", holder
        )
    return LockHeld(
        f"The project {folder} is open {holder.words}: close it there, open it read-only, or take it over if nothing "
        "there has it open any more.",
        holder,
    )


def _process(pid: int) -> str | None:
    """Return what tells a living process from others that had or will have its number; None if there is none.

    `_UNKNOWN` where the system does not say. On Linux the ticks since boot and the boot itself: a clock that jumps
    changes neither.
    """
    if platform.system() == "Linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return _UNKNOWN if 0 < pid < 2**31 and psutil.pid_exists(pid) else None
        return None if stat[0] in "ZX" else f"{boot}:{stat[19]}"
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.0f}"
    except psutil.AccessDenied:
        return _UNKNOWN
    except (psutil.Error, ValueError, OverflowError):
        return None


@functools.cache
def _machine() -> str:
    """Return what tells computers of the same name apart."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if text := Path(path).read_text("ascii").strip():
                return text[:64]
    node = uuid.getnode()
    return (
        platform.machine() if node >> 40 & 1 else f"{node:012x}"
    )  # that bit marks a random number, new in each process
