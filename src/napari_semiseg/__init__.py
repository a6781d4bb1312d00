"""Segment nuclei on whole slides from few labels or none.

The verbs are functions that yield events (`train`, `predict`, `export`, `inspect`, `run`, `demo`) or return a result
(`evaluate`). Importing this package imports neither torch nor napari: a name is loaded when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Control": "engine.control",
    "DemoRequest": "engine.demo",
    "ExportRequest": "engine.export_job",
    "InputError": "errors",
    "InspectRequest": "engine.inspect",
    "PredictRequest": "engine.predict",
    "RunRequest": "engine.run",
    "TrainRequest": "engine.requests",
    "demo": "engine.demo",
    "evaluate": "engine.evaluate",
    "export": "engine.export",
    "inspect": "engine.inspect",
    "open_image": "io.images",
    "predict": "engine.predict",
    "read_labels": "io.labels",
    "run": "engine.run",
    "train": "engine.train",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
