"""What this installation offers, as plain data: the dock draws its forms from it and never imports a method."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from math import isnan
from typing import Any

from napari_semiseg import __version__
from napari_semiseg.config import Config
from napari_semiseg.data.sampler import SamplerConfig
from napari_semiseg.engine.devices import available_devices
from napari_semiseg.engine.looks import IDEAS
from napari_semiseg.engine.optim import OptimConfig
from napari_semiseg.engine.presets import MINUTES, PAPER, variants_of
from napari_semiseg.methods._base import Method
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.nn._registry import NETWORKS, NetworkSpec

REQUESTS = {
    "train": "napari_semiseg.engine.requests:TrainRequest",
    "predict": "napari_semiseg.engine.predict:PredictRequest",
    "suggest": "napari_semiseg.engine.suggest:SuggestRequest",
    "split": "napari_semiseg.engine.split:SplitRequest",
    "propose": "napari_semiseg.engine.propose:ProposeRequest",
    "doubtful": "napari_semiseg.engine.review:DoubtfulRequest",
    "compare": "napari_semiseg.engine.compare:CompareRequest",
    "region": "napari_semiseg.engine.review:RegionRequest",
    "export": "napari_semiseg.engine.export_job:ExportRequest",
    "inspect": "napari_semiseg.engine.inspect:InspectRequest",
}
"""Where the options of each verb are declared."""


def describe() -> dict[str, Any]:
    """Describe methods, networks, presets, devices and the options of every verb.

    Returns
    -------
    dict
        Plain values only. ``methods`` and ``networks`` come in the order in which a user should meet them; ``options``
        are JSON Schemas with bounds, defaults and help; ``devices`` have each made one training step or say why not.
    """
    return {
        "version": __version__,
        "methods": describe_methods(),
        "networks": [_network(network) for network in NETWORKS.values()],
        "presets": [
            *({"name": name, "minutes": minutes} for name, minutes in MINUTES.items()),
            {"name": "paper", "minutes": None, "methods": list(PAPER)},
        ],
        "devices": [_without_nan(asdict(device)) for device in available_devices()],
        "looks": [{"name": name, "title": idea.title, "needs_truth": idea.needs_truth} for name, idea in IDEAS.items()],
        "requests": {verb: _request(path).model_json_schema() for verb, path in REQUESTS.items()},
        "sampler": SamplerConfig.model_json_schema(),
        "optimizer": OptimConfig.model_json_schema(),
    }


def describe_methods() -> list[dict[str, Any]]:
    """Describe the methods alone, in the order in which a user should meet them; quick, since no device is tested."""
    return [_method(method) for method in METHODS.values()]


def _method(method: type[Method]) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "summary": (method.__doc__ or "").strip().partition("\n")[0],
        "references": list(method.references),
        "labels": method.labels,
        "classes": method.classes,
        "network": method.network,
        "shows": method.shows,
        "variants": list(variants_of(method.name)),
        "options": method.Config.model_json_schema(),
    }


def _network(network: NetworkSpec) -> dict[str, Any]:
    return {
        "name": network.name,
        "title": network.title,
        "finite_reach": network.finite_reach,
        "pretrained": network.pretrained,
        "deviations": list(network.deviations),
    }


def _request(path: str) -> type[Config]:
    module, _, name = path.partition(":")
    request: type[Config] = getattr(import_module(module), name)
    return request


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and isnan(value) else value for name, value in values.items()}
