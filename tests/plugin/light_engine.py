"""An engine without torch: run as ``python light_engine.py``. It proposes and suggests; training only counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.serve import VERBS, serve
from napari_semiseg.events import Event, Finished, Started, Stop


def train(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Wait until it is asked to stop."""
    yield Started("train", str(args.get("out", "")), 1)
    while not isinstance(control.wait(), Stop):
        continue
    yield Finished("train", stopped=True)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    verbs = {name: VERBS[name].load for name in ("suggest", "propose")}
    serve(
        {name: (lambda args, control, load=load: load()(args, control)) for name, load in verbs.items()}
        | {"train": train},
        prepare=lambda: None,
        describe=lambda: {"methods": [], "networks": [], "presets": [], "devices": []},
    )
