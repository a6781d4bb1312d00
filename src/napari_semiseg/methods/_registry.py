"""The methods, in the order in which a user should meet them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import Method
from napari_semiseg.methods.cac import CAC
from napari_semiseg.methods.cct import CCT
from napari_semiseg.methods.cdcl import CDCL
from napari_semiseg.methods.cps import CPS
from napari_semiseg.methods.crcfp import CRCFP
from napari_semiseg.methods.csl import CSL
from napari_semiseg.methods.cutmix_seg import CutMixSeg
from napari_semiseg.methods.dualrel import DualRel
from napari_semiseg.methods.fixmatch import FixMatch
from napari_semiseg.methods.gct import GCT
from napari_semiseg.methods.hematoxylin_threshold import HematoxylinThreshold
from napari_semiseg.methods.intensity_threshold import IntensityThreshold
from napari_semiseg.methods.mean_teacher import MeanTeacher
from napari_semiseg.methods.random_forest import RandomForest
from napari_semiseg.methods.scale_pretext import ScalePretext
from napari_semiseg.methods.stain_guided import StainGuided
from napari_semiseg.methods.supervised import Supervised
from napari_semiseg.methods.tcsm import TCSM
from napari_semiseg.methods.tiny_cnn import TinyCNN
from napari_semiseg.methods.unimatch import UniMatch

_ALL: tuple[type[Method], ...] = (
    Supervised,
    StainGuided,
    CDCL,
    MeanTeacher,
    FixMatch,
    UniMatch,
    CutMixSeg,
    CPS,
    TCSM,
    CAC,
    CRCFP,
    CCT,
    GCT,
    DualRel,
    CSL,
    ScalePretext,
    HematoxylinThreshold,
    IntensityThreshold,
    RandomForest,
    TinyCNN,
)
METHODS: Mapping[str, type[Method]] = MappingProxyType({method.name: method for method in _ALL})
AUTO: type[Method] = StainGuided
"""What "auto" stands for: docs/decisions/choosing-the-method.md."""


def find_method(name: str) -> type[Method]:
    """Return the method of that name, or what "auto" stands for.

    Raises
    ------
    InputError
        If there is none.
    """
    if name == "auto":
        return AUTO
    if name not in METHODS:
        raise InputError(f"There is no method '{name}': choose one of auto, {', '.join(METHODS)}.")
    return METHODS[name]
