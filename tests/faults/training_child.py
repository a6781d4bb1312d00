"""A script without a main guard that plays the viewer: it watches a real engine that trains, and says how far it is.

    python training_child.py REQUEST_JSON LOG_FOLDER

Prints the engine's process id, then `training`; a test then kills this process.
"""

import json
import sys
from pathlib import Path

from napari_semiseg.app.engine_log import EngineLog
from napari_semiseg.app.engine_model import ChildStarted, EngineModel
from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.events import Failed, StepDone

sys.stdout.reconfigure(line_buffering=True)
sys.stdout.write("script\n")
watch = EngineWatch(log=EngineLog(Path(sys.argv[2])))
model = EngineModel()
model.commanded.connect(watch.send)
model.run("train", json.loads(sys.argv[1]))
for batch in watch.batches():
    for item in batch:
        if isinstance(item, ChildStarted):
            sys.stdout.write(f"{item.pid}\n")
        elif isinstance(item, tuple) and isinstance(item[0], StepDone | Failed):
            sys.stdout.write("training\n" if isinstance(item[0], StepDone) else f"{item[0].message}\n")
    if batch:
        model.apply(batch)
        watch.acknowledge()
