"""A training that saves all the time, to be killed: python killed_run.py REQUEST_JSON."""

from __future__ import annotations

import json
import sys

import torch

from napari_semiseg.engine import train as training
from napari_semiseg.engine.requests import TrainRequest

torch.set_num_threads(1)
training.SAVE_SECONDS = 0.05
for event in training.train(TrainRequest.model_validate(json.loads(sys.argv[1]))):
    print(type(event).__name__, flush=True)  # noqa: T201 - the test reads along
