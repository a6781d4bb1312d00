"""The real engine on a slow disk: run as ``python slow_engine.py``.

A read of a block at full size takes as many seconds as `SLOW_S` of the environment says. What holds pixel (0, 0) of it
cannot be read as long as there is no file of the name in `MENDED`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from napari_semiseg.blocks import Box
from napari_semiseg.engine.serve import serve
from napari_semiseg.errors import ReadError
from napari_semiseg.io.images import Image

SLOW_S = float(os.environ["SLOW_S"])
MENDED = Path(os.environ["MENDED"])
SAMPLE = 512
"""Longer side of what is read at most to get to know an image, in pixels."""
read = Image.read


def slowly(self: Image, box: Box, level: int = 0) -> Any:
    """Read as a tired disk does."""
    if level == 0 and max(Box(*box).shape) > SAMPLE:
        time.sleep(SLOW_S)
    if level == 0 and Box(*box).contains(Box(0, 0, 1, 1)) and not MENDED.exists():
        raise ReadError("The disk is gone.")
    return read(self, box, level)


if __name__ == "__main__":
    Image.read = slowly  # type: ignore[method-assign]
    serve()
