"""Encoders from segmentation-models-pytorch, timm and torchvision, fresh or pretrained on ImageNet."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import huggingface_hub
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from torch import nn

from napari_semiseg.errors import InputError
from napari_semiseg.nn.stain import RGB_MEAN, RGB_STD, ColorInput

_FAMILIES = ("resnet", "resnext", "densenet", "vgg", "mobilenet_v2")  # torchvision's, with ImageNet's mean and spread
_ANSWER_S = 5.0


@dataclass(frozen=True)
class Encoder:
    """An encoder and what belongs to it.

    Attributes
    ----------
    color : ColorInput
        Standardizes colors as the encoder was trained with.
    module : nn.Module
        (B, 3, H, W) → six features, at 1, 1/2, 1/4 … of the resolution.
    channels : tuple of 6 int
        Channels of the features.
    notes : tuple of str
        What went otherwise than asked, one sentence each.
    """

    color: ColorInput
    module: nn.Module
    channels: tuple[int, ...]
    notes: tuple[str, ...] = ()


def build_encoder(name: str, *, pretrained: bool = False, output_stride: int = 32) -> Encoder:
    """Build an encoder of five stages.

    Parameters
    ----------
    name : str
        As segmentation-models-pytorch (``resnet50``) or timm (``convnext_tiny``) calls it.
    pretrained : bool
        Whether to load weights from ImageNet, from the cache on disk or else from the Hugging Face Hub, as safetensors
        only. Where that fails the encoder is fresh and a note says so.
    output_stride : int
        16 replaces the last stride by dilation, where the encoder can.

    Raises
    ------
    InputError
        If nobody knows the name, or a U-shaped network cannot be built on it.
    """
    full_name, color = _known(name)
    fetched = _pretrained(full_name, output_stride) if pretrained else None
    module = _fresh(full_name, output_stride) if fetched is None else fetched
    channels = _tried_out(name, module)
    return Encoder(color, module, channels, (_from_scratch(name),) if pretrained and fetched is None else ())


def _from_scratch(name: str) -> str:
    return (
        f"The ImageNet weights of {name} could not be fetched, so training starts from scratch: "
        "connect to the internet once, or give them as a .safetensors file."
    )


def _known(name: str) -> tuple[str, ColorInput]:
    """Return what segmentation-models-pytorch calls the encoder, and its standardization."""
    if name.startswith(_FAMILIES) and "imagenet" in smp.encoders.encoders.get(name, {}).get("pretrained_settings", {}):
        return name, ColorInput(RGB_MEAN, RGB_STD)
    if not timm.is_model(name):
        raise InputError(f"There is no encoder '{name}': choose one of timm, for example resnet34 or convnext_tiny.")
    trained = timm.models.get_pretrained_cfg(name)
    return f"tu-{name}", ColorInput(trained.mean, trained.std) if trained else ColorInput()


def _fresh(full_name: str, output_stride: int) -> nn.Module:
    try:
        module: nn.Module = smp.encoders.get_encoder(full_name, weights=None, output_stride=output_stride)
    except (ValueError, RuntimeError, TypeError, AssertionError, AttributeError, KeyError) as error:
        raise _unfit(full_name.removeprefix("tu-")) from error
    return module


def _pretrained(full_name: str, output_stride: int) -> nn.Module | None:
    timm_name = full_name.removeprefix("tu-")
    from_timm = timm_name != full_name
    if from_timm and not getattr(timm.models.get_pretrained_cfg(timm_name), "hf_hub_id", None):
        return None  # what lies elsewhere is a pickle
    options = {"pretrained_cfg_overlay": {"hf_hub_filename": "model.safetensors"}} if from_timm else {}
    try:
        with nullcontext() if _hub_answers() else _cache_only():
            module: nn.Module = smp.encoders.get_encoder(
                full_name, weights=True if from_timm else "imagenet", output_stride=output_stride, **options
            )
    except (OSError, huggingface_hub.errors.HfHubHTTPError, SafetensorError):
        return None
    return module


def _hub_answers() -> bool:
    """Whether the hub can be reached: asked once, since the libraries ask for a minute before they give up."""
    if huggingface_hub.is_offline_mode():
        return False
    try:
        with urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=_ANSWER_S):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


@contextmanager
def _cache_only() -> Iterator[None]:
    """Let the hub's client look at the cache on disk and nowhere else."""
    constants = huggingface_hub.constants
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@torch.no_grad()
def _tried_out(name: str, module: nn.Module) -> tuple[int, ...]:
    """Return the channels of the features; refuse encoders that take one size only or do not halve step by step."""
    module.eval()
    try:
        features = module(torch.zeros(1, 3, 64, 96))
    except (ValueError, RuntimeError, TypeError, AssertionError) as error:
        raise _unfit(name) from error
    finally:
        module.train()
    halved = all(f.shape[2:] == (64 >> k, 96 >> k) for k, f in enumerate(features[:5]))
    if len(features) != 6 or not halved:
        raise _unfit(name)
    return tuple(f.shape[1] for f in features)


def _unfit(name: str) -> InputError:
    return InputError(
        f"No network can be built on the encoder '{name}': choose a convolutional one, for example resnet34."
    )
