"""An engine whose graphics driver gives up once: run as ``python failing_driver.py MARK``.

The third step of the first training raises what torch raises then; MARK is a file that says that it has happened.
"""

import sys
from pathlib import Path

from napari_semiseg.engine.courtesy import Courtesy
from napari_semiseg.engine.serve import load_torch, serve

Courtesy.begin = lambda self: None  # a process that gives way to all others is no matter of this test
mark = Path(sys.argv[1])


def prepare() -> None:
    load_torch()
    from napari_semiseg.engine import train

    whole = train.take_step

    def failing(recipe, step, rate):  # type: ignore[no-untyped-def]
        if step == 2 and not mark.exists():
            mark.touch()
            raise RuntimeError("CUDA error: unspecified launch failure")
        return whole(recipe, step, rate)

    train.take_step = failing


if __name__ == "__main__":
    serve(prepare=prepare, describe=lambda: {"methods": []})
