"""What every method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.config import Config
from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.io.diagnostics import Diagnostic
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.nn.collapse import NUCLEI, CollapseGuard, is_mixed
from napari_semiseg.nn.network import Network


@dataclass(frozen=True)
class Task:
    """What a method is told about the work before it starts.

    Attributes
    ----------
    classes : int
        Number of classes with background, at least 2.
    steps : int
        Optimizer steps of the whole run. What a paper ties to its epochs (warm-up, ramps) a method ties to this.
    crop : int
        Side of a crop, in pixels.
    seed : int
        Seed of the run.
    probe : Tensor, (P, C, H, W), in [0, 1], or None
        A few fixed unlabeled crops, for criteria that need no label; C as in `Batch`.
    """

    classes: int = 2
    steps: int = 1_000
    crop: int = 320
    seed: int = 0
    probe: Tensor | None = None


NO_NETWORK = "none"
"""What stands in the place of a network's name where a method trains none."""


class MethodConfig(Config):
    """Options of a method. Every field has bounds and a description: forms and help texts are made from them."""


class PseudoLabelConfig(MethodConfig):
    """Options that all methods share which learn from what a network finds in unlabeled crops."""

    collapse_patience: int = Field(
        50,
        ge=0,
        le=100_000,
        description="Steps with one class only in unlabeled crops until these count a tenth, and a warning; 0: never.",
    )


class Method(nn.Module, ABC):
    """A way to learn: the losses of a step, what follows a step, and the network that predicts in the end.

    Every tensor that must survive (weights, teacher, memory bank, counts) is a parameter or a buffer, so that one
    `state_dict` holds all of it. Randomness is drawn from torch's global generator, which the engine seeds anew at
    every step from the run's seed and the step's number: a method keeps no generator, and a resumed run equals an
    uninterrupted one.

    Parameters
    ----------
    new_network : callable
        Returns a freshly initialized network at every call (other weights each time). Called once by most methods,
        twice by those that train two; not at all by those with a network of their own.
    task : Task
    config : MethodConfig
        Of the class that `Config` names.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    does: ClassVar[str]
    """What it does, in one sentence that a manuscript could print."""
    references: ClassVar[tuple[str, ...]] = ()
    """Works that it comes from, each as a manuscript would print it; those of its network are the network's."""
    Config: ClassVar[type[MethodConfig]]
    views: ClassVar[Views]
    labels: ClassVar[Literal["needed", "used", "unused"]]
    """`needed`: refuses to run without; `used`: runs without too; `unused`: never looks at them."""
    classes: ClassVar[Literal["two", "any"]] = "any"
    random: ClassVar[bool] = True
    """Whether the seed makes a difference."""
    counts_steps: ClassVar[bool] = False
    """Whether something happens at steps of a certain number, so that none may come twice and none be left out: the
    number of steps is then never corrected on the way."""
    network: ClassVar[str | None] = None
    """Name of the only network that fits, if the method brings its own; `NO_NETWORK` if it trains none."""
    shows: ClassVar[str] = ""
    """What `diagnostics` shows, for a menu; "" where the method has nothing of its own to show."""

    def __init__(self, new_network: Callable[[], Network], task: Task, config: MethodConfig) -> None:
        super().__init__()
        self.task = task

    @abstractmethod
    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the weighted terms of the objective by name, or None where the batch teaches nothing.

        The engine sums the terms, and makes no step on None. A term over an empty set is a zero that hangs on the
        graph.
        """

    def after_step(self, step: int) -> None:
        """Do what follows the optimizer's step (teacher, memory, restarts). Also called after a skipped step."""

    def begun_anew(self) -> list[nn.Parameter]:
        """Return the weights that the last `after_step` replaced by fresh ones: their optimizer forgets their past."""
        return []

    @abstractmethod
    def predictor(self) -> nn.Module:
        """Return the network that predicts: (B, 3, H, W) in [0, 1] → logits (B, classes, H, W).

        Its module tree holds the whole of it: the engine copies, saves and exports it on its own.
        """

    def second_opinion(self) -> nn.Module | None:
        """Return a network that learns beside the one that predicts; None where there is none.

        Where the two disagree, more is to be learned: that is a part of the doubt by which tiles are suggested.
        """
        return None

    def counters(self) -> dict[str, float]:
        """Return what was counted in the last step, by name (confident fraction, anchors, skipped …)."""
        return {}

    def warnings(self) -> list[str]:
        """Return what the user should be told after this step, in plain sentences. Asked once after every step."""
        return []

    def diagnostics(self, image: Tensor) -> Mapping[str, Diagnostic]:
        """Return what the method makes of an image, as maps over it by name.

        Called without gradient and in evaluation mode, at any time; whatever is drawn comes from torch's global
        generator. It changes nothing.

        Parameters
        ----------
        image : Tensor, (1, 3, H, W), in [0, 1]
            Sides are multiples of the network's divisor and of 8.
        """
        return {}

    @property
    def least_crop(self) -> int:
        """Side of the smallest crop that the method can work with, in pixels."""
        return 1

    def ready_to_predict(self, step: int) -> bool:
        """Whether the predictor has learned anything yet: no preview and no validation before."""
        return True

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return what to train: for each optimizer its groups, each with ``params`` and optionally ``lr_scale``.

        The first group of an optimizer may have ``optim``: options of the optimizer by name, in place of the run's.
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [[{"params": trained}]]


class PseudoLabelMethod(Method):
    """A method that learns from what a network finds in unlabeled crops, and notices when that is one class only.

    `losses` puts what it counts into `_counters`, the share of nuclei under `NUCLEI` where there were unlabeled crops,
    and multiplies what these teach by the weight of `guard`.
    """

    def __init__(self, new_network: Callable[[], Network], task: Task, config: PseudoLabelConfig) -> None:
        super().__init__(new_network, task, config)
        self.guard = CollapseGuard(config.collapse_patience)
        self._counters: dict[str, float] = {}

    def after_step(self, step: int) -> None:
        """Count the step if it held one class only."""
        self.guard.watch(self._counters.get(NUCLEI))

    def warnings(self) -> list[str]:
        """Say that pseudo-labels have collapsed."""
        return self.guard.warnings(self._counters.get(NUCLEI))


class FittedMethod(Method):
    """A method without gradient: it looks at all labels once, and its run is one step.

    What it finds lies in the buffers of its predictor, whose shapes depend on the options alone, so that a checkpoint
    is loaded like that of a network. Whatever it draws depends on `Task.seed`.
    """

    network: ClassVar[str | None] = NO_NETWORK
    views: ClassVar[Views] = Views(labeled=True, augment=False)
    margin: ClassVar[int] = 0
    """Pixels around a labeled region that `fit` is shown too; their labels are `IGNORE`."""

    @abstractmethod
    def fit(self, regions: Iterable[Batch]) -> None:
        """Learn from the labeled regions: batches of one, whole and as they lie in the images.

        Raises
        ------
        InputError
            If there is nothing to learn from and the method needs it.
        """

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return None: there is no objective to descend."""
        return None

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return none: there is no optimizer."""
        return []


def zero_of(reference: Tensor) -> Tensor:
    """Return a zero on the graph of `reference`: the value of a term over an empty set."""
    return reference.sum() * torch.zeros((), dtype=reference.dtype, device=reference.device)


def valid_pixels(batch: Batch) -> Tensor:
    """Return which pixels, (B, H, W), of the unlabeled crops show the image: all of them where nothing is said."""
    if batch.valid_u is not None:
        return batch.valid_u
    assert batch.weak_u is not None
    return torch.ones_like(batch.weak_u[:, 0], dtype=torch.bool)


def found_where_both(logits: Tensor, label: Tensor) -> float | None:
    """Return the share of nuclei that a network finds in a batch whose labels hold both, nuclei and background.

    Parameters
    ----------
    logits : Tensor, (B, C, H, W)
    label : Tensor, (B, H, W), integer
        `IGNORE` where nothing is known.

    Returns
    -------
    float or None
        Near 0 or 1 over many steps it tells of a collapse. None where the labels are of one kind.
    """
    known = label != IGNORE
    return share_of(most_likely(logits.detach()) > 0, known) if is_mixed(share_of(label > 0, known)) else None


def pseudo_label_counters(logits: Tensor, valid: Tensor, threshold: float | None = None) -> dict[str, float]:
    """Return what a batch of pseudo-labels looks like, in shares of its valid pixels.

    Parameters
    ----------
    logits : Tensor, (B, C, H, W)
        Of the network that labels.
    valid : Tensor, (B, H, W), bool
    threshold : float or None
        The probability from which on a pixel is confident.

    Returns
    -------
    dict
        `NUCLEI`, and with a threshold ``confident``. 0 or 1 over many steps tells of a collapse.
    """
    certainty, found = logits.detach().float().softmax(1).max(1)
    counters = {NUCLEI: share_of(found > 0, valid)}
    if threshold is not None:
        counters["confident"] = share_of(certainty >= threshold, valid)
    return counters


def share_of(mask: Tensor, valid: Tensor) -> float:
    """Return the share of the valid pixels that lie in a mask; 0 where none is valid."""
    return float((mask & valid).sum() / valid.sum().clamp(min=1))
