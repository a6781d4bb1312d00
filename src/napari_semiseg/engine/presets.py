"""What a preset means: how long, which network, and which options, for each method.

`quick`, `standard` and `best` differ in time. `paper` is what the method's paper trained with: network, crop, batch,
optimizer and number of epochs. A variant is a row of a paper's table, or what a released code does: all of the preset
`paper`, and what that row changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from napari_semiseg.engine.requests import Preset
from napari_semiseg.errors import InputError
from napari_semiseg.methods import csl, cutmix_seg, mean_teacher, unimatch
from napari_semiseg.methods._base import NO_NETWORK, FittedMethod
from napari_semiseg.methods._registry import find_method

MINUTES: dict[str, float] = {"quick": 3.0, "standard": 10.0, "best": 40.0}
"""Minutes of training on a CPU; on a GPU the same, with a larger network."""


@dataclass(frozen=True)
class Plan:
    """What a preset chooses.

    Attributes
    ----------
    network : str
    minutes : float or None
        None where `epochs` count.
    epochs : int or None
        Passes over the unlabeled cells; 1 where a method looks at all labels once.
    options : dict
        Options of the sampler, the optimizer and the method that differ from their defaults.
    """

    network: str
    minutes: float | None
    epochs: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def steps(self, unlabeled_cells: int, batch: int) -> int | None:
        """Return the number of steps where the plan counts in epochs."""
        return None if self.epochs is None else self.epochs * max(1, math.ceil(unlabeled_cells / batch))


_PAPER_CDCL: dict[str, Any] = {
    "crop": 320,
    "batch_labeled": 8,
    "batch_unlabeled": 8,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "schedule": "poly",
    "color_labeled": "paper",
    "color_strong": "paper",
}
_PAPER_CSL: dict[str, Any] = {
    "crop": 300,
    "batch_unlabeled": 10,
    "optimizer": "adam",
    "lr": 2e-4,
    "weight_decay": 1e-4,
    "schedule": "constant",
}
_PAPER_MEAN_TEACHER: dict[str, Any] = {
    "crop": 256,
    "batch_labeled": 12,
    "batch_unlabeled": 12,
    "optimizer": "sgd",
    "lr": 0.01,
    "weight_decay": 1e-4,
    "schedule": "poly",
}
"""Of SSL4MIS: 30,000 steps with 12 of 1,312 slices are 274 epochs. Its U-Net is about as small as ours."""
_PAPER_UNIMATCH: dict[str, Any] = {
    "crop": 320,
    "batch_labeled": 8,
    "batch_unlabeled": 8,
    "optimizer": "sgd",
    "lr": 0.01,
    "encoder_lr_scale": 0.1,
    "weight_decay": 1e-4,
    "schedule": "poly",
    "scale": 0.6,
    "degrees": 0.0,
    "color_labeled": "none",
}
"""Of the paper's Pascal runs, whose rate is 0.001 for the encoder and ten times as high for what follows. They magnify
by 0.5 to 2: a ratio of 4, as 1 ± 0.6 has."""
_PAPER_CUTMIX: dict[str, Any] = {
    "crop": 224,
    "batch_labeled": 10,
    "batch_unlabeled": 10,
    "optimizer": "sgd",
    "lr": 0.1,
    "weight_decay": 5e-4,
    "schedule": "poly",
    "scale": 0.1,
    "degrees": 45.0,
    "color_labeled": "none",
    "color_strong": "paper",
}
"""Of the configuration for dermoscopy: 100 times 400 steps."""
_PAPER_CPS: dict[str, Any] = {
    "crop": 512,
    "batch_labeled": 8,
    "batch_unlabeled": 8,
    "optimizer": "sgd",
    "lr": 0.005,
    "weight_decay": 1e-4,
    "schedule": "poly",
    "scale": 0.6,
    "degrees": 0.0,
    "color_labeled": "none",
}
"""Of the paper's Pascal runs without CutMix, which magnify by 0.5 to 2."""
_PAPER_TCSM: dict[str, Any] = {
    "crop": 224,
    "batch_labeled": 11,
    "batch_unlabeled": 11,
    "optimizer": "adam",
    "lr": 1e-4,
    "weight_decay": 0.0,
    "schedule": "constant",
}
"""A batch of 22 for 8,000 steps; how many of the 22 were labeled is not known, here it is half."""
_PAPER_PAIRS: dict[str, Any] = {
    "crop": 320,
    "batch_labeled": 8,
    "batch_unlabeled": 8,
    "scale": 0.43,
    "degrees": 0.0,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "poly",
    "color_strong": "paper",
}
"""Of CAC and CRCFP. Both magnify by 0.8 to 2 of a base size: a ratio of 2.5, as 1 ± 0.43 has."""
_PAPER_CRCFP: dict[str, Any] = {**_PAPER_PAIRS, "lr": 0.001, "color_labeled": "paper"}
_PAPER_GCT: dict[str, Any] = {
    "crop": 512,
    "batch_labeled": 2,
    "batch_unlabeled": 2,
    "optimizer": "sgd",
    "lr": 2.5e-4,
    "weight_decay": 5e-4,
    "schedule": "poly",
}
"""Of the released code, whose crops are a pixel wider; its network is DeepLab v2 with ResNet-101."""
_PAPER_TINY: dict[str, Any] = {
    "optimizer": "adam",
    "lr": 2e-3,
    "weight_decay": 0.0,
    "schedule": "constant",
    "scale": 0.0,
    "degrees": 0.0,
    "color_labeled": "none",
}
_PAPER_SCALE: dict[str, Any] = {"optimizer": "adam", "lr": 2e-4, "weight_decay": 1e-4, "scale": 0.0, "degrees": 0.0}
_FITTED = Plan(NO_NETWORK, None, 1)

PAPER: dict[str, Plan] = {
    "supervised": Plan("dense_unet161", None, 80, {**_PAPER_CDCL, "weight_dice": 0.0, "ema_decay": 0.0}),
    "stain_guided": Plan("dense_unet161", None, 80, {**_PAPER_CDCL, "ema_decay": 0.0}),  # ours: as CDCL's rows
    "cdcl": Plan("dense_unet161", None, 80, _PAPER_CDCL),
    "mean_teacher": Plan("small_unet", None, 274, _PAPER_MEAN_TEACHER),
    "fixmatch": Plan("deeplab_resnet101", None, 80, _PAPER_UNIMATCH),
    "unimatch": Plan("deeplab_resnet101", None, 80, _PAPER_UNIMATCH),
    "cutmix_seg": Plan("dense_unet161", None, 200, _PAPER_CUTMIX),
    "cps": Plan("deeplab_resnet50", None, 34, _PAPER_CPS),
    "tcsm": Plan("dense_unet161", None, 230, _PAPER_TCSM),
    "cac": Plan(
        "deeplab_resnet50", None, 80, {**_PAPER_PAIRS, "lr": 0.01, "encoder_lr_scale": 0.1, "color_labeled": "none"}
    ),
    "crcfp": Plan("deeplab_resnet50", None, 80, _PAPER_CRCFP),
    "cct": Plan(
        "deeplab_resnet50",
        None,
        80,
        {
            **_PAPER_PAIRS,
            "batch_labeled": 10,
            "batch_unlabeled": 10,
            "lr": 0.01,
            "encoder_lr_scale": 0.1,
            "color_labeled": "none",
        },
    ),
    "gct": Plan("deeplab_resnet101", None, 45, _PAPER_GCT),
    "dualrel": Plan("dense_unet161", None, 80, _PAPER_CDCL),  # not published: as CDCL
    "csl": Plan("csl", None, 300, {**_PAPER_CSL, "restarts": 1}),
    "hematoxylin_threshold": _FITTED,
    "intensity_threshold": _FITTED,
    "random_forest": _FITTED,
    "scale_pretext": Plan("scale_attention", None, 700, {**_PAPER_SCALE, "crop": 640, "batch_unlabeled": 32}),
    "tiny_cnn": Plan("csl", None, 300, {**_PAPER_TINY, "crop": 300}),
}

_FAST: dict[str, Any] = {"lr": 3e-3, "warmup": 50}
"""What the small U-Net learns most with in minutes: docs/decisions/choosing-the-method.md."""

SMALL: dict[str, dict[str, Any]] = {
    "supervised": {"weight_dice": 0.0},
    "stain_guided": {
        "batch_labeled": 3,
        "batch_unlabeled": 3,
        "color_labeled": "stain",
        "color_strong": "stain_strong",
    },
    "cdcl": {"batch_labeled": 4, "batch_unlabeled": 4, "max_anchors": 256, "bank_capacity": 6400, "ema_decay": 0.99},
    "mean_teacher": {"batch_labeled": 4, "batch_unlabeled": 4, "weight_sup": 1.0},
    "fixmatch": {"batch_labeled": 4, "batch_unlabeled": 4, "labeler": "teacher", "ema_decay": 0.99},
    "unimatch": {"batch_labeled": 4, "batch_unlabeled": 4, "labeler": "teacher", "ema_decay": 0.99},
    "cutmix_seg": {"batch_labeled": 4, "batch_unlabeled": 4, "ema_warmup": True},
    "cps": {"batch_labeled": 4, "batch_unlabeled": 4, "ema_decay": 0.99},
    "tcsm": {"batch_labeled": 4, "batch_unlabeled": 4, "ema_decay": 0.99},
    "cac": {"batch_labeled": 4, "batch_unlabeled": 4, "negatives": 1024, "projection": 64, "ema_decay": 0.99},
    "crcfp": {"batch_labeled": 4, "batch_unlabeled": 4, "projection": 64, "ema_decay": 0.99},
    "cct": {
        "batch_labeled": 4,
        "batch_unlabeled": 4,
        "adversarial": 1,
        "dropout": 2,
        "cutout": 2,
        "context_mask": 1,
        "object_mask": 1,
        "drop": 2,
        "noise": 2,
        "ema_decay": 0.99,
    },
    "gct": {"batch_labeled": 4, "batch_unlabeled": 4, "detector_width": 16},
    "dualrel": {"batch_labeled": 4, "batch_unlabeled": 4, "channels": 64},
    "csl": {**_PAPER_CSL, "batch_unlabeled": 6, "lr": 2e-3},
    "scale_pretext": {
        **_PAPER_SCALE,
        "crop": 256,
        "batch_unlabeled": 6,
        "lr": 1e-3,
        "width": 16,
        "encoder": "resnet18",
        "pretrained": False,
    },
    "tiny_cnn": {**_PAPER_TINY, "batch_labeled": 4},
}
"""Options for two cores: what leaves each method's terms intact and fits minutes."""

_GUIDED_ON_CARDS: dict[str, Any] = {**SMALL["stain_guided"], "batch_labeled": 6, "batch_unlabeled": 6}
"""A step of so small a network takes a card no longer with twice the crops."""


def _cdcl(network: str = "dense_unet161", **options: Any) -> Plan:
    return Plan(network, None, 80, {**_PAPER_CDCL, **options})


def _crcfp(network: str = "deeplab_resnet50", **options: Any) -> Plan:
    return Plan(network, None, 80, {**_PAPER_CRCFP, **options})


def _over_paper(method: str, changed: Mapping[str, Mapping[str, Any]]) -> dict[str, Plan]:
    whole = PAPER[method]
    return {name: replace(whole, options={**whole.options, **options}) for name, options in changed.items()}


VARIANTS: dict[str, dict[str, Plan]] = {
    "supervised": {
        "CDCL, table 2, SupOnly": PAPER["supervised"],
        "CDCL, supplement, table 3, SupOnly": replace(PAPER["supervised"], network="unet_resnet50"),
    },
    "cdcl": {
        "table 2, scheme 1": _cdcl(rule="random", weight_cons=0.0, weight_ent=0.0),
        "table 2, scheme 2": _cdcl(rule="pixel", weight_cons=0.0, weight_ent=0.0),
        "table 2, scheme 3": _cdcl(weight_cons=0.0, weight_ent=0.0),
        "table 2, scheme 4": _cdcl(weight_ent=0.0),
        "table 2, scheme 5": _cdcl(weight_cons=0.0),
        "table 2, scheme 6": _cdcl(weight_contr=0.0),
        "table 2, ours": _cdcl(),
        **{
            f"supplement, table 1, {weight:g}": _cdcl(weight_contr=weight)
            for weight in (0.0, 0.01, 0.05, 0.1, 0.5, 1.0)
        },
        **{f"supplement, table 2, h/{count}": _cdcl(patches_per_side=count) for count in (2, 4, 8, 16)},
        "supplement, table 3, ours": _cdcl("unet_resnet50", pool=4),
        "released code": _cdcl(rule="sum", consistency_mask="unconfident", detach="history"),
    },
    "cct": {"CRCFP, table 3, CCT": replace(PAPER["cct"], network="deeplab_resnet101")},
    "cac": {"CRCFP, table 3, CAC": replace(PAPER["cac"], network="deeplab_resnet101")},
    "crcfp": {
        "table 3, DeepLab": _crcfp("deeplab_resnet101", weight_contr=0.0, weight_ent=0.0, weight_cross=0.0),
        "table 3, CRCFP": _crcfp("deeplab_resnet101"),
        "table 4, SupOnly": _crcfp(weight_contr=0.0, weight_ent=0.0, weight_cross=0.0),
        "table 4, scheme 1": _crcfp(weight_ent=0.0, weight_cross=0.0),
        "table 4, scheme 2": _crcfp(weight_cross=0.0),
        "table 4, scheme 3": _crcfp(),
        **{f"table 5, {count}": _crcfp(negatives=count) for count in (100, 500, 1200, 1600, 2400, 3200)},
        **{f"table 6, {count}": _crcfp(auxiliaries=count) for count in (1, 2, 4, 6, 8, 10)},
        "released code": _crcfp(
            lr=0.01,
            encoder_lr_scale=0.1,
            color_labeled="none",
            warmup_fraction=0.0,
            auxiliaries=6,
            negatives=2400,
            threshold_side="target",
            mean_over="anchors",
            dropout="spatial",
            entropy_gradient=False,
        ),
    },
    "csl": _over_paper("csl", {f"table 1, {name}": options for name, options in csl.TABLE_1.items()}),
    "mean_teacher": _over_paper("mean_teacher", mean_teacher.SOURCES),
    "cutmix_seg": _over_paper("cutmix_seg", cutmix_seg.SOURCES),
    "unimatch": _over_paper("unimatch", unimatch.SOURCES),
}
"""Rows of the papers' tables, and what released codes do, by the names that users give: all that each trains with.

A row's name begins with that of its table and a comma, by which all rows of a table are found. Rows without unlabeled
crops are those of the method `supervised`, but for CRCFP's, whose network predicts as it is in any case. A
patch of a sixteenth of a crop of 320 has two and a half cells: it is cut down to two, as in CDCL's code. Features of
the U-Net are twice as fine as those of the DenseUNet, and pooled to the same cells. The code of CRCFP draws 1,200
negatives of a crop on each of two devices."""


def variants_of(method: str) -> Mapping[str, Plan]:
    """Return the variants of a method by their names; empty where its papers have none."""
    return VARIANTS.get(method, {})


def variants_named(method: str, name: str) -> list[str]:
    """Return the variant of that name, or all rows of the table of that name.

    Raises
    ------
    InputError
        If the method has neither; the sentence lists the names that it has.
    """
    known = variants_of(method)
    found = [name] if name in known else [row for row in known if row.startswith(f"{name}, ")]
    if not found:
        raise _no_variant(method, name)
    return found


def find_variant(method: str, name: str) -> Plan:
    """Return what a variant of a method trains with.

    Raises
    ------
    InputError
        If there is none of that name; the sentence lists those that there are.
    """
    if name not in variants_of(method):
        raise _no_variant(method, name)
    return VARIANTS[method][name]


def _no_variant(method: str, name: str) -> InputError:
    if method in VARIANTS:
        return InputError(
            f"The method '{method}' has no variant '{name}': choose one of {'; '.join(VARIANTS[method])}."
        )
    return InputError(f"The method '{method}' has no variants; those that have some are {', '.join(VARIANTS)}.")


def plan(preset: Preset, method: str, device: str) -> Plan:
    """Return what a preset chooses for a method on a kind of device ("cpu", "cuda", "mps")."""
    if preset == "paper":
        return PAPER[method]
    kind = find_method(method)
    if issubclass(kind, FittedMethod):
        return _FITTED
    if kind.network:
        return Plan(kind.network, MINUTES[preset], None, SMALL[method])
    if method == "stain_guided":  # its two networks have to see the stain, and were chosen so
        network, options = ("narrow_stain_unet", SMALL[method]) if device == "cpu" else ("stain_unet", _GUIDED_ON_CARDS)
        return Plan(network, MINUTES[preset], None, {**_FAST, **options})
    if device == "cpu":
        return Plan("stain_unet", MINUTES[preset], None, {**_FAST, **SMALL[method]})
    return Plan("unet_resnet34", MINUTES[preset], None, {"crop": 256})
