"""GCT: guided collaborative training. Two networks teach each other where a third says that they are right.

Z. Ke, D. Qiu, K. Li, Q. Yan, R. W. H. Lau, "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning",
ECCV 2020.

    L_T  = L_sup + λ_fc L_fc + λ_dc(t) L_dc      of each task network
    L_FD = w mean (F(x, p) - flaws(p, y))²       of the flaw detector, on labeled crops

paper                       here
T¹, T²                      self.left, self.right: of the same architecture, with other weights to begin with
F                           self.detector
flaw ground truth           `flaw_targets`: μ, ν
dynamic consistency L_dc    mean squared difference of probabilities and what `exchange` chooses pixel by pixel, from
                            the flaw maps after `handled_flaws`; ξ is `threshold`
flaw correction L_fc        mean of F(x, p)² where both networks are likely to be wrong; F does not learn by it
λ_dc(t)                     weight_dc * sigmoid_rampup over 5 of the paper's 45 epochs

Each part has an optimizer of its own: the task networks that of the run (SGD in the paper), the detector Adam. All
terms are evaluated with the weights before the step, so that one descent for all equals the code's one after the
other. The numbers are those of the released code. Ours: one pass of each network serves all terms, where the code makes
a second one to save memory; pixels without a label, or that show no image, count nowhere, and as right in what the
detector learns; the left network predicts, while the paper reports the better of the two; a flaw map in which nothing
stands out is zero, where the code leaves a negative number.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.losses._reduce import in_full_precision, mean_where
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.flaws import exchange, flaw_targets, handled_flaws
from napari_semiseg.losses.ramps import sigmoid_rampup
from napari_semiseg.methods._base import MethodConfig, PseudoLabelConfig, PseudoLabelMethod, Task, pseudo_label_counters
from napari_semiseg.nn.flaw_detector import SMALLEST, FlawDetector
from napari_semiseg.nn.network import Network


class GCTConfig(PseudoLabelConfig):
    """Options of `GCT`; defaults are those of the released code."""

    weight_fc: float = Field(1.0, ge=0, le=1_000, description="Weight of the flaw correction.")
    weight_dc: float = Field(100.0, ge=0, le=1_000, description="Weight of the dynamic consistency after its ramp.")
    weight_fd: float = Field(10.0, ge=0, le=1_000, description="Weight of what the flaw detector learns.")
    ramp_fraction: float = Field(
        5 / 45, ge=0, le=1, description="Share of the run until weight_dc is reached (5 of 45 epochs)."
    )
    threshold: float = Field(0.6, ge=0, le=1, description="Flaw above which a pixel is likely to be wrong.")
    mu: float = Field(0.5, gt=0, le=1, description="Share of the difference of probabilities that is a flaw.")
    nu: int = Field(1, ge=0, le=16, description="How often flaws are widened.")
    detector_width: int = Field(64, ge=2, le=256, description="Channels of the flaw detector's first convolution.")
    detector_lr: float = Field(1e-4, gt=0, le=1, description="Learning rate of the flaw detector (Adam).")


class GCT(PseudoLabelMethod):
    """Two networks taught by labels and by each other, guided by a detector of their flaws."""

    name: ClassVar[str] = "gct"
    title: ClassVar[str] = "Guided collaborative training (GCT)"
    does: ClassVar[str] = (
        "Two such networks learned from labels and from each other, guided by a third that finds their flaws; "
        "the first of them predicts."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "Z. Ke, D. Qiu, K. Li, Q. Yan, R. W. H. Lau, Guided collaborative training for pixel-wise semi-supervised "
            "learning, ECCV 2020."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = GCTConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: GCTConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.left, self.right = new_network(), new_network()
        self.detector = FlawDetector(task.classes, config.detector_width)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return what both networks learn, and what the detector learns."""
        parts = [image for image in (batch.image_l, batch.weak_u) if image is not None]
        if not parts:
            return None
        c, image, counted = self.config, torch.cat(parts), _counted(batch)
        logits = [self.left(image), self.right(image)]
        probs = [in_full_precision(each).softmax(1) for each in logits]
        flaws = [self.detector(image, each.detach()) for each in probs]
        left, right = (each.detach() for each in probs)
        target = exchange(left, right, *map(handled_flaws, flaws), threshold=c.threshold)

        losses: dict[str, Tensor] = {}
        if batch.label_l is not None:
            label = batch.label_l
            losses["sup"] = _both(cross_entropy(each[: len(label)], label) for each in logits)
            found = (self._detector_loss(*pair, label) for pair in zip(flaws, probs, strict=True))
            losses["fd"] = c.weight_fd / 2 * _both(found)
        wrong = (self._seen_by_detector(image, each).square() * target.both_bad for each in probs)
        losses["fc"] = self.guard.weight * c.weight_fc * _both(mean_where(each[:, 0], counted) for each in wrong)
        unlike = [(each - to).square().mean(1) for each, to in zip(probs, (target.left, target.right), strict=True)]
        ramp = self.guard.weight * sigmoid_rampup(step, c.ramp_fraction * self.task.steps)
        losses["dc"] = c.weight_dc * ramp * _both(mean_where(each, counted) for each in unlike)
        unlabeled = slice(0 if batch.image_l is None else len(batch.image_l), None)
        shares = {} if batch.weak_u is None else pseudo_label_counters(logits[0][unlabeled], counted[unlabeled])
        self._counters = shares | {
            "wrong in both": float(target.both_bad.float().mean()),
            "taken from the right": float(target.taken),
        }
        return losses

    def _detector_loss(self, flaws: Tensor, probs: Tensor, label: Tensor) -> Tensor:
        """Return how far the flaw maps of the labeled crops are from what is wrong there."""
        known = label != IGNORE
        found = in_full_precision(flaws[: len(label)])
        probs = probs[: len(label)].detach()
        onehot = F.one_hot(torch.where(known, label, 0), probs.shape[1]).movedim(-1, 1).to(probs.dtype)
        wrong = flaw_targets(probs, onehot, known, mu=self.config.mu, nu=self.config.nu)
        return mean_where((found - wrong).square()[:, 0], known)

    def _seen_by_detector(self, image: Tensor, probs: Tensor) -> Tensor:
        """Return flaw maps whose gradient reaches the probabilities and not the detector."""
        frozen = {name: parameter.detach() for name, parameter in self.detector.named_parameters()}
        return in_full_precision(functional_call(self.detector, frozen, (image, probs)))

    def predictor(self) -> nn.Module:
        """Return the left network."""
        return self.left

    def second_opinion(self) -> nn.Module:
        """Return the right network."""
        return self.right

    @property
    def least_crop(self) -> int:
        """Return the side of the smallest crop in which the detector tells one place from another."""
        return SMALLEST

    def counters(self) -> dict[str, float]:
        """Return the shares of nuclei, of what is likely to be wrong in both, and of what the left is taught."""
        return self._counters

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return both networks, each with an optimizer of its own, and the detector with its Adam."""
        adam = {"optimizer": "adam", "lr": self.config.detector_lr, "weight_decay": 0.0, "beta2": 0.99}
        return [
            [{"params": list(self.left.parameters())}],
            [{"params": list(self.right.parameters())}],
            [{"params": list(self.detector.parameters()), "optim": adam}],
        ]


def _counted(batch: Batch) -> Tensor:
    """Return the pixels, (B, H, W), of labeled and unlabeled crops that count."""
    parts = []
    if batch.image_l is not None:
        assert batch.label_l is not None, "a labeled crop has its label"
        parts.append(batch.label_l != IGNORE)
    if batch.weak_u is not None:
        everything = torch.ones_like(batch.weak_u[:, 0], dtype=torch.bool)
        parts.append(everything if batch.valid_u is None else batch.valid_u)
    return torch.cat(parts)


def _both(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).sum()
