"""An engine without torch: run as ``python light_engine.py``. It does what needs none; training only reads labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_semiseg.engine.control import Control
from napari_semiseg.engine.serve import VERBS, serve
from napari_semiseg.events import ASIDE, Cancel, Event, Finished, LabelsChanged, LabelsRead, Started, Stop
from napari_semiseg.project.folder import ProjectFolder


def train(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Read the labels whenever they have changed, until it is asked to stop."""
    yield Started("train", str(args.get("out", "")), 1)
    while not isinstance(command := control.wait(), Stop | Cancel):
        if isinstance(command, LabelsChanged):
            complete = [tile for tile in ProjectFolder.open(args["project"], read_only=True).tiles if tile.used]
            yield LabelsRead(len(complete), 0, "")
    yield Finished("train", stopped=True, canceled=isinstance(command, Cancel))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    verbs = {name: VERBS[name].load for name in ("suggest", "propose", *ASIDE)}
    serve(
        {name: (lambda args, control, load=load: load()(args, control)) for name, load in verbs.items()}
        | {"train": train},
        prepare=lambda: None,
        describe=lambda: {"methods": [], "networks": [], "presets": [], "devices": []},
    )
