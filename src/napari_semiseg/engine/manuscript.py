"""The methods paragraph of a run, for a manuscript: what was trained on what, and whom to cite.

It is made of what the run wrote down, and names no image, folder or person.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.kept_step import chance
from napari_semiseg.methods._base import FittedMethod
from napari_semiseg.methods._registry import find_method
from napari_semiseg.nn._registry import network_spec

SOFTWARE = "The napari-semiseg developers, napari-semiseg {version}: nucleus segmentation from few labels or none."
WORKS = {
    "adamw": "I. Loshchilov, F. Hutter, Decoupled weight decay regularization, ICLR 2019.",
    "adam": "D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, ICLR 2015.",
    "torch": "A. Paszke et al., PyTorch: an imperative style, high-performance deep learning library, NeurIPS 2019.",
    "skimage": "S. van der Walt et al., scikit-image: image processing in Python, PeerJ 2, e453, 2014.",
}
_OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "stochastic gradient descent"}
_SCHEDULES = {"poly": "decaying polynomially", "constant": "constant"}


def methods_paragraph(run: Path) -> str:
    """Write the methods paragraph of a run, and its references.

    Parameters
    ----------
    run : Path
        A run folder.

    Returns
    -------
    str
        A paragraph whose works are numbered in brackets, an empty line, and the works, a line each.

    Raises
    ------
    InputError
        If `run` is no run folder, or was made by a later version.
    """
    config, works = RunFolder(run).read_config(), _Works()
    facts, choices = config["facts"], config["choices"]
    fitted = issubclass(find_method(choices["method"]), FittedMethod)
    sentences = [
        _what(config, choices, works),
        _data(facts, choices, str(config["request"]["subimage"])),
        *([] if fitted else [_training(config, choices, works), _selection(facts, choices, config.get("judging"))]),
        _machine(config, works),
        f"Touching nuclei were separated by a watershed {works.cite(WORKS['skimage'])}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence) + "\n\n" + works.listed()


class _Works:
    """Works in the order in which they are cited."""

    def __init__(self) -> None:
        self._works: list[str] = []

    def cite(self, work: str) -> str:
        if work not in self._works:
            self._works.append(work)
        return f"[{self._works.index(work) + 1}]"

    def listed(self) -> str:
        return "\n".join(f"[{place}] {work}" for place, work in enumerate(self._works, start=1))


def _what(config: Mapping[str, Any], choices: Mapping[str, Any], works: _Works) -> str:
    version = config["versions"]["napari-semiseg"]
    method = find_method(choices["method"])
    begun = f"Nuclei were segmented with napari-semiseg {version} {works.cite(SOFTWARE.format(version=version))}"
    named = " ".join([method.title, *map(works.cite, method.references)])
    if variant := config["request"].get("variant"):  # which runs of older versions do not have
        named += f", with the options of its variant “{variant}”"
    if issubclass(method, FittedMethod):
        return f"{begun} by the method {named}. {method.does}"
    network = network_spec(choices["network"])
    built = network.title + "".join(f" {works.cite(work)}" for work in network.references)
    if choices["weights"] == "imagenet":
        built += ", whose encoder was pretrained on ImageNet"
    return f"{begun}. The network ({built}) was trained by the method {named}. {method.does}"


def _data(facts: Mapping[str, Any], choices: Mapping[str, Any], side: str) -> str:
    method = find_method(choices["method"])
    images = f"{facts['images']} image{'s' if facts['images'] != 1 else ''}"
    at = f" at {choices['mpp']:g} µm per pixel" if choices.get("mpp") else ""
    if method.labels == "unused" or not facts["labeled"]:
        return f"It saw {images}{at} and no label."
    count = len(facts["labeled"])
    fields = f"{count} labeled field{'s' if count != 1 else ''} of at most {side} x {side} pixels"
    judges = len(facts["validation"])
    aside = f"; {judges} more {'was' if judges == 1 else 'were'} kept for validation"
    nuclei = f"with {facts['nuclei']:,} nuclei" if facts.get("nuclei") else "with scribbles"
    return f"It saw {images}{at}, of which {fields} {nuclei} taught it{aside if judges else ''}."


def _training(config: Mapping[str, Any], choices: Mapping[str, Any], works: _Works) -> str:
    sampler, optim = choices["sampler"], choices["optim"]
    views = find_method(choices["method"]).views
    unlabeled = views.weak or views.strong or views.pairs is not None
    labeled = sampler["batch_labeled"] if views.labeled else 0
    free = 0 if config["facts"]["labeled"] else labeled
    crops = [f"{labeled} labeled"] if labeled > free else []
    crops += [f"{sampler['batch_unlabeled'] + free} unlabeled"] if unlabeled else []
    name = _OPTIMIZERS[optim["optimizer"]]
    cited = f" {works.cite(WORKS[optim['optimizer']])}" if optim["optimizer"] in WORKS else ""
    rate = f"a learning rate of {optim['lr']:g}, {_SCHEDULES.get(optim['schedule'], optim['schedule'])}"
    turns = config.get("turns")  # corrections of a planned number on the way
    steps, side = turns[-1][1] if turns else choices["steps"], sampler["crop"]
    return (
        f"Training was planned for {steps:,} steps of {' and '.join(crops)} crops of {side} x {side} pixels with "
        f"{name}{cited} and {rate} (seed {choices['seed']})."
    )


def _selection(facts: Mapping[str, Any], choices: Mapping[str, Any], full: float | None) -> str:
    """Say which network the validation fields made the result; see `kept_step`. `full`: how many full ones they are."""
    fields = len(facts["validation"])
    if not fields:
        return ""
    judges = min(fields, choices.get("judges") or fields)
    some = "" if judges == fields else f"{judges} of "
    on = "the validation field" if fields == 1 else f"{some}the validation fields"
    dice = "Dice coefficient" if judges == 1 else "mean Dice coefficient"
    return (
        f"During training the network was evaluated on {on} at intervals, and the most recent one was retained unless "
        f"its {dice} there was more than {chance((full or fields) * judges / fields):.2g} below the highest until then."
    )


def _machine(config: Mapping[str, Any], works: _Works) -> str:
    version, device = config["versions"]["torch"], config["facts"]["device"]
    precision = config["choices"].get("precision", "float32")
    return f"It ran in {precision} on {device.upper()} with PyTorch {version} {works.cite(WORKS['torch'])}."
