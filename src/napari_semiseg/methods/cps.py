"""CPS: two networks, each of which learns what the other one finds.

X. Chen, Y. Yuan, G. Zeng, J. Wang, "Semi-supervised semantic segmentation with cross pseudo supervision", CVPR 2021.

    L     = L_s + λ L_cps
    L_s   = CE(p1, y) + CE(p2, y)                             over labeled pixels                    Eq. 1
    L_cps = CE(p1, argmax p2) + CE(p2, argmax p1)             over labeled and unlabeled crops       Eqs. 2 to 4

paper      here
θ1, θ2     self.first, self.second: one architecture, other weights at the start, an optimizer each
Y1, Y2     argmax of the logits, every pixel, no threshold; no gradient passes it
λ          weight_cps: 1.5 (the paper's for VOC; 6 for Cityscapes, 1 and 5 with CutMix)
CutMix     `cps_on="mixed"`: each network labels the plain crops without gradient, a box of half the area is pasted from
           the next crop, and both learn on the mixed crops; unlabeled ones only

Network 1 predicts, as in the released code. Labeled and unlabeled crops pass each network one after the other, as
there, and networks that label do so in train mode. Ours: `ema_decay` above 0 predicts with the running average of
network 1, which is free; x0 and x1 of CutMix are of one batch; pixels of labeled crops without a label, and those that
show no image, count nowhere.
After `collapse_patience` steps with one class only in unlabeled crops these count a tenth (`CollapseGuard`; ours).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_semiseg.data.batch import IGNORE, Batch, Views
from napari_semiseg.data.cutmix import boxes_of_area, mixed
from napari_semiseg.losses._reduce import most_likely
from napari_semiseg.losses.consistency import pseudo_label_cross_entropy
from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.methods._base import (
    MethodConfig,
    PseudoLabelConfig,
    PseudoLabelMethod,
    Task,
    pseudo_label_counters,
    share_of,
    valid_pixels,
)
from napari_semiseg.nn.ema import ema_decay, ema_update
from napari_semiseg.nn.network import Network


class CPSConfig(PseudoLabelConfig):
    """Options of `CPS`."""

    weight_sup: float = Field(1.0, ge=0, le=100, description="Weight of the supervised terms.")
    weight_cps: float = Field(1.5, ge=0, le=100, description="Weight of the cross pseudo supervision.")
    cps_on: Literal["both", "unlabeled", "mixed"] = Field(
        "both", description="Crops it takes: labeled and unlabeled, unlabeled ones, or unlabeled ones mixed by CutMix."
    )
    area: float = Field(0.5, gt=0, le=1, description="Share of a crop that CutMix's box covers.")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Memory of the averaged network 1 that predicts; 0 predicts with it as it is."
    )


class CPS(PseudoLabelMethod):
    """Two networks that teach each other."""

    name: ClassVar[str] = "cps"
    title: ClassVar[str] = "Cross pseudo supervision (CPS)"
    does: ClassVar[str] = (
        "Two such networks learned from labels and from what the other one finds; the first of them predicts."
    )
    references: ClassVar[tuple[str, ...]] = (
        (
            "X. Chen, Y. Yuan, G. Zeng, J. Wang, Semi-supervised semantic segmentation with cross pseudo supervision, "
            "CVPR 2021."
        ),
    )
    Config: ClassVar[type[MethodConfig]] = CPSConfig
    views: ClassVar[Views] = Views(labeled=True, weak=True)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "needed"

    def __init__(self, new_network: Callable[[], Network], task: Task, config: CPSConfig) -> None:
        super().__init__(new_network, task, config)
        self.config = config
        self.first, self.second = new_network(), new_network()
        self.average = deepcopy(self.first).requires_grad_(False) if config.ema_decay else None

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor] | None:
        """Return the supervised terms of both networks, and what they learn of each other."""
        c, self._counters = self.config, {}
        losses: dict[str, Tensor] = {}
        labeled: tuple[Tensor, Tensor] | None = None
        if batch.image_l is not None and batch.label_l is not None:
            labeled = self.first(batch.image_l), self.second(batch.image_l)
            terms = [cross_entropy(logits, batch.label_l) for logits in labeled]
            losses["sup"] = c.weight_sup * torch.stack(terms).sum()
        if batch.weak_u is not None:
            crossed = self._mixed(batch) if c.cps_on == "mixed" else self._plain(batch, labeled)
            losses["cps"] = self.guard.weight * c.weight_cps * crossed
        return losses or None

    def _plain(self, batch: Batch, labeled: tuple[Tensor, Tensor] | None) -> Tensor:
        """Cross on the crops as they are."""
        first, second = self.first(batch.weak_u), self.second(batch.weak_u)
        valid = valid_pixels(batch)
        if self.config.cps_on == "both" and labeled is not None and batch.label_l is not None:
            first, second = torch.cat([labeled[0], first]), torch.cat([labeled[1], second])
            valid = torch.cat([batch.label_l != IGNORE, valid])
        return self._crossed((first, second), (first, second), valid)

    def _mixed(self, batch: Batch) -> Tensor:
        """Cross on mixed crops, labeled by mixing what was found on the plain ones."""
        assert batch.weak_u is not None
        valid = valid_pixels(batch)
        boxes = boxes_of_area(valid.shape, self.config.area)
        with torch.no_grad():
            found = mixed(boxes, self.first(batch.weak_u)), mixed(boxes, self.second(batch.weak_u))
        image = mixed(boxes, batch.weak_u)
        return self._crossed((self.first(image), self.second(image)), found, mixed(boxes, valid))

    def _crossed(self, said: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], valid: Tensor) -> Tensor:
        """Return Eq. 4: each network's logits against the classes that the other one found."""
        self._counters = {
            **pseudo_label_counters(found[0], valid),
            "agreement": share_of(most_likely(found[0]) == most_likely(found[1]), valid),
        }
        one, other = said
        return pseudo_label_cross_entropy(one, found[1], valid=valid) + pseudo_label_cross_entropy(
            other, found[0], valid=valid
        )

    def after_step(self, step: int) -> None:
        """Move the average, if there is one."""
        super().after_step(step)
        if self.average is not None:
            ema_update(self.average, self.first, ema_decay(step, self.config.ema_decay))

    def predictor(self) -> nn.Module:
        """Return network 1, or its running average."""
        return self.first if self.average is None else self.average

    def second_opinion(self) -> nn.Module:
        """Return network 2."""
        return self.second

    def counters(self) -> dict[str, float]:
        """Return the share of nuclei that network 1 finds, and of pixels where both find the same class."""
        return self._counters

    def parameter_groups(self) -> list[list[dict[str, Any]]]:
        """Return one optimizer's parameters for each network."""
        return [[{"params": list(net.parameters())}] for net in (self.first, self.second)]
