"""Pseudo-labels, or predictions, that have become one class everywhere, and stay so."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CUT = 0.1
"""What the weight of pseudo-labels is multiplied by while they have collapsed."""
NUCLEI = "pseudo-labeled nuclei"
"""What methods call the share of nuclei among their pseudo-labels, where they count."""
ALMOST = 1e-3
"""Share of the other class up to which a batch counts as one of a single class."""
FEWER = (
    "was found in unlabeled crops, so they now count a tenth until that changes: label more tiles, or lower the weight "
    "of what is learned from unlabeled crops."
)
"""What is said of pseudo-labels."""
LOOK_AT_LABELS = (
    "was found in labeled crops that hold nuclei and background: look whether the labels lie where the nuclei are, or "
    "train again with a lower learning rate (--set lr=0.0003)."
)
"""What is said of a network that learns from labels alone: nothing there could count less."""


class CollapseGuard(nn.Module):
    """Notices that pseudo-labels have held a single class for many steps, and lets them teach less until they do not.

    That everything is background is consistent with itself, under any disturbance: no consistency gets a network out
    of it, labels may. The count is a buffer, so that a resumed run goes on with it.

    Parameters
    ----------
    patience : int
        Steps in a row from which on it is a collapse; with 0 nothing ever is.
    consequence : str
        How the sentence for the user goes on after "For 50 steps no nucleus".
    stride : int
        Steps between two that are watched.
    """

    steps: Tensor

    def __init__(self, patience: int, consequence: str = FEWER, stride: int = 1) -> None:
        super().__init__()
        self.patience, self.consequence, self.stride = patience, consequence, stride
        self.register_buffer("steps", torch.tensor(0))

    @property
    def weight(self) -> float:
        """What the weight of pseudo-labels is multiplied by in this step."""
        return CUT if self.patience and int(self.steps) >= self.patience else 1.0

    def watch(self, nuclei: float | None) -> None:
        """Count a step whose pseudo-labels have this share of nuclei; None where there were none to look at."""
        if nuclei is None:
            return
        if is_mixed(nuclei):
            self.steps.zero_()
        else:
            self.steps += self.stride

    def warnings(self, nuclei: float | None) -> list[str]:
        """Return what to tell the user after `watch`, at the step in which it becomes a collapse and at no other."""
        if nuclei is None or not self.patience or not 0 <= int(self.steps) - self.patience < self.stride:
            return []
        found = "nothing but nuclei" if nuclei > 0.5 else "no nucleus"
        return [f"For {self.patience} steps {found} {self.consequence}"]


def is_mixed(nuclei: float) -> bool:
    """Whether a share of nuclei tells of two classes."""
    return ALMOST <= nuclei <= 1 - ALMOST
