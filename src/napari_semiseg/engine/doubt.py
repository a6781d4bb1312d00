"""How unsure trained networks are of a place: what each of them doubts, and what they disagree about.

The doubt is the entropy of the mean of all opinions that there are, as in N. Houlsby et al., "Bayesian Active Learning
for Classification and Preference Learning", 2011, Eq. 2. Those asked are the network that predicts, the one that learns
beside it (student and teacher, two networks), and earlier trainings of the same kind: restarts, whose spread is the
uncertainty of B. Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
NeurIPS 2017. Theirs differ in seed alone, ours in their labels too, since each was trained when there were fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.engine.checkpoint import read_card
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.engine.predictor import load_predictor, load_second_opinion
from napari_semiseg.engine.suggest import opened
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import Image
from napari_semiseg.io.rescale import scale_of
from napari_semiseg.metrics.entropy import binary_entropy
from napari_semiseg.nn.opinions import Opinions, opinions_of
from napari_semiseg.project.folder import ProjectFolder

RESTARTS = 2
"""Earlier trainings of the same kind that are asked, at most: each takes as long as the first."""


class Doubt(NamedTuple):
    """How unsure networks are of a rectangle of an image: means over its pixels, in bits.

    Attributes
    ----------
    entropy : float
        Of the mean of all opinions, in [0, 1].
    disagreement : float
        The part of it that no opinion doubts by itself, in [0, entropy]; 0 where there is one opinion.
    opinions : int
        How many were asked.
    nuclei : float
        Share of the pixels that are nucleus, in their mean opinion, in [0, 1].
    """

    entropy: float
    disagreement: float = 0.0
    opinions: int = 1
    nuclei: float = 0.0


DoubtOf = Callable[[int, Box], Doubt]
"""Returns the doubt about a rectangle of an image (by its index in the project)."""


@dataclass(frozen=True)
class Witness:
    """Networks of one training, with what they have to be told about images (see `Predictor`)."""

    opinions: Opinions
    device: torch.device
    divisor: int
    reach: int | None
    mpp: float | None

    def probabilities(self, image: Image, box: Box) -> NDArray[np.float64]:
        """Return the probability of nucleus by each opinion: (n, h, w)."""
        shares = confidence_map(
            self.opinions,
            image,
            box,
            device=self.device,
            divisor=self.divisor,
            reach=self.reach,
            scale=scale_of(image, self.mpp),
        )
        return np.asarray(shares * (len(shares) / 255))


def mean_doubt(witnesses: Sequence[Witness], image: Image, box: Box) -> Doubt:
    """Return the mean doubt of some networks about a rectangle of an image; every opinion counts the same."""
    each = np.concatenate([witness.probabilities(image, box) for witness in witnesses])
    mean = each.mean(axis=0)
    entropy, alone = (float(binary_entropy(part.clip(0, 1)).mean()) for part in (mean, each))  # bytes round beyond 1
    return Doubt(entropy, max(0.0, entropy - alone), len(each), float(mean.mean()))


def doubt_of_runs(project: ProjectFolder, runs: Sequence[Path], device: str) -> DoubtOf:
    """Return the doubt of trained runs.

    Parameters
    ----------
    project : ProjectFolder
    runs : sequence of Path
        The newest first; those of its kind that come after it are asked, too (see `RESTARTS`).
    device : str
    """
    newest, *earlier = runs
    chosen = choose_device(device)
    witnesses = [witness_of(newest, chosen), *restarts(kind_of(newest), earlier, chosen)]
    image = lru_cache(maxsize=16)(partial(opened, project))  # one that is opened anew is looked at as a whole anew

    def doubt(index: int, box: Box) -> Doubt:
        return mean_doubt(witnesses, image(index), box)

    return doubt


def witness_of(run: Path, device: torch.device) -> Witness:
    """Load the networks of a run: the one that predicts, and the one that learned beside it.

    Raises
    ------
    InputError
        If the run holds no usable model.
    """
    found = load_predictor(run, device)
    other = load_second_opinion(run, device)
    networks = [found.network] if other is None else [found.network, other]
    return Witness(opinions_of(networks).eval(), device, found.divisor, found.reach, found.mpp)


def restarts(kind: tuple[str, str], runs: Sequence[Path], device: torch.device) -> list[Witness]:
    """Load the first runs, at most `RESTARTS`, that were trained by the same method and network and can be read."""
    return list(islice((witness for run in runs if (witness := _restart(kind, run, device))), RESTARTS))


def _restart(kind: tuple[str, str], run: Path, device: torch.device) -> Witness | None:
    try:
        return witness_of(run, device) if kind_of(run) == kind else None
    except InputError:  # damaged, or of another version: the others are asked
        return None


def kind_of(run: Path) -> tuple[str, str]:
    """Return the method and network of a run's newest model.

    Raises
    ------
    InputError
        If its card cannot be read.
    """
    card = read_card(max((run / "checkpoints").glob("best-*.safetensors")))
    choices = card.get("choices", {})
    return str(choices.get("method")), str(choices.get("network"))
