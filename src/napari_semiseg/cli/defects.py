"""Where the details of a defect go, so that the terminal needs only one sentence."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

from napari_semiseg import __version__


def log_defect(error: BaseException) -> str:
    """Write the traceback of an error to a file of its own, and return one sentence that says where.

    The file lies in the user's folder for logs, or, where that cannot be written, among the temporary files.
    """
    lines = [
        f"napari-semiseg {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {' '.join(sys.argv)}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    path = _write("\n".join(lines))
    what = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}".rstrip(".: ")
    return f"This is a defect of the program, not of your data ({what}): please report it with the details in {path}."


def _write(text: str) -> Path:
    from platformdirs import user_log_path

    name = f"defect-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (user_log_path("napari-semiseg", appauthor=False), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    return Path(os.devnull)
