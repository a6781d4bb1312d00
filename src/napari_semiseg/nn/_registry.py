"""The networks, in the order in which a user should meet them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from napari_semiseg.errors import InputError
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.stain import STAINS, Stain
from napari_semiseg.nn.weights import load_weights
from napari_semiseg.works import BOSERUP, SAHASRABUDHE


@dataclass(frozen=True)
class NetworkSpec:
    """What is known of a network before it is built.

    Attributes
    ----------
    name : str
        What the command line calls it.
    title : str
        What a person reads.
    build : callable
        (classes, stain, pretrained) → network with fresh weights, or with an encoder from ImageNet. Imports what it
        needs by itself.
    finite_reach : bool
        Whether an output pixel depends on a bounded part of the image, so that predictions do not depend on the block
        size.
    takes_scale : bool
        Whether crops come with a fourth channel: the stain, on the scale of their image (`stain_scale`).
    pretrained : bool
        Whether ``weights="imagenet"`` means anything.
    deviations : tuple of str
        Where ours differs from the paper's network, one sentence each.
    references : tuple of str
        Whom to cite, as a manuscript would print it.
    """

    name: str
    title: str
    build: Callable[[int, Stain, bool], Network]
    finite_reach: bool = False
    takes_scale: bool = False
    pretrained: bool = False
    deviations: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


def _small_unet(classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.unet import SmallUNet

    return SmallUNet(classes, stain)


def _stain_unet(width: int, classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.stain_unet import StainUNet

    return StainUNet(classes, stain, width)


def _unet(encoder: str, classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.smp import UNet

    return UNet(classes, encoder, pretrained=pretrained)


def _deeplab(encoder: str, classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.deeplab import DeepLabV3Plus

    return DeepLabV3Plus(classes, encoder, pretrained=pretrained)


def _dense_unet(classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.dense_unet import DenseUNet

    return DenseUNet(classes, pretrained=pretrained)


def _csl(classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.confidence import ConfidenceNetwork

    if classes != 2:
        raise InputError(
            f"The network 'csl' tells nuclei from background and nothing else, not {classes} classes: choose another."
        )
    return ConfidenceNetwork()


def _scale_attention(classes: int, stain: Stain, pretrained: bool) -> Network:
    from napari_semiseg.nn.attention import AttentionNetwork

    if classes != 2:
        raise InputError(
            f"The network 'scale_attention' tells nuclei from background, not {classes} classes: choose another."
        )
    return AttentionNetwork()


_CENTERS = (
    "Bilinear upsampling keeps pixel centers (align_corners=False) where the released code aligns corners, "
    "so that blocks sample the same grid."
)
_ONE_IMAGE = (
    "With a batch of one, the image-pooling branch is normalized by its running statistics: one value has no variance."
)
_NOT_SYNCHRONIZED = "Batch statistics are not synchronized between devices."
_DROPOUT_MODULE = (
    "Dropout in the classifier is a module; the released code calls a function that stays active when predicting, "
    "so that evaluation is random."
)
_PAPERS_COUNT = (
    "7,372 parameters as in the released code; the paper's 10.8k count a featurizer that its losses do not use."
)

_UNET = "unet_"

_RONNEBERGER = (
    "O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015."
)
_CHEN = (
    "L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam, Encoder-decoder with atrous separable convolution for "
    "semantic image segmentation, ECCV 2018."
)
_HE = "K. He, X. Zhang, S. Ren, J. Sun, Deep residual learning for image recognition, CVPR 2016."
_HUANG = "G. Huang, Z. Liu, L. van der Maaten, K. Q. Weinberger, Densely connected convolutional networks, CVPR 2017."

_SPECS = (
    NetworkSpec(
        "stain_unet",
        "Small U-Net, stain on each image's own scale",
        partial(_stain_unet, 32),
        finite_reach=True,
        takes_scale=True,
        references=(_RONNEBERGER,),
    ),
    NetworkSpec(
        "narrow_stain_unet",
        "Small U-Net, stain on each image's own scale, three quarters as wide",
        partial(_stain_unet, 24),
        finite_reach=True,
        takes_scale=True,
        references=(_RONNEBERGER,),
    ),
    NetworkSpec("small_unet", "Small U-Net", _small_unet, finite_reach=True, references=(_RONNEBERGER,)),
    NetworkSpec(
        "unet_resnet34", "U-Net, ResNet-34", partial(_unet, "resnet34"), pretrained=True, references=(_RONNEBERGER, _HE)
    ),
    NetworkSpec(
        "unet_resnet50",
        "U-Net, ResNet-50",
        partial(_unet, "resnet50"),
        pretrained=True,
        deviations=("The supplement of CDCL names this network and gives no detail: the decoder is the library's.",),
        references=(_RONNEBERGER, _HE),
    ),
    NetworkSpec(
        "deeplab_resnet50",
        "DeepLabV3+, ResNet-50",
        partial(_deeplab, "resnet50"),
        pretrained=True,
        deviations=(_CENTERS, _ONE_IMAGE, _NOT_SYNCHRONIZED),
        references=(_CHEN, _HE),
    ),
    NetworkSpec(
        "deeplab_resnet101",
        "DeepLabV3+, ResNet-101",
        partial(_deeplab, "resnet101"),
        pretrained=True,
        deviations=(_CENTERS, _ONE_IMAGE, _NOT_SYNCHRONIZED),
        references=(_CHEN, _HE),
    ),
    NetworkSpec(
        "dense_unet161",
        "DenseUNet-161",
        _dense_unet,
        pretrained=True,
        deviations=(_CENTERS, _DROPOUT_MODULE),
        references=(_HUANG, _RONNEBERGER),
    ),
    NetworkSpec(
        "csl",
        "CSL confidence network",
        _csl,
        finite_reach=True,
        deviations=(_PAPERS_COUNT,),
        references=(BOSERUP,),
    ),
    NetworkSpec(
        "scale_attention",
        "Scale attention network",
        _scale_attention,
        finite_reach=True,
        references=(SAHASRABUDHE, _HE),
    ),
)

NETWORKS: Mapping[str, NetworkSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def network_spec(name: str) -> NetworkSpec:
    """Return what is known of a network: a key of `NETWORKS`, or ``unet_`` and the name of any encoder.

    Raises
    ------
    InputError
        If there is no such network. Whether an encoder exists is seen only when it is built.
    """
    encoder = name.removeprefix(_UNET)
    if name in NETWORKS:
        return NETWORKS[name]
    if encoder in ("", name):
        known = ", ".join(NETWORKS)
        raise InputError(f"There is no network '{name}': choose one of {known}, or unet_ and an encoder of timm.")
    return NetworkSpec(name, f"U-Net, {encoder}", partial(_unet, encoder), pretrained=True, references=(_RONNEBERGER,))


def build_network(name: str, classes: int = 2, *, stain: Stain = "hematoxylin", weights: str = "none") -> Network:
    """Build a network.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`, or ``unet_`` and the name of any encoder of timm or torchvision.
    classes : int
        Number of classes with background, 2 to 255.
    stain : {"hematoxylin", "intensity", "inverted", "green"}
        What the fourth input channel of `small_unet` shows, and that of a network which takes a scale
        (`NetworkSpec.takes_scale`) where an image comes without it. The others see colors only.
    weights : str
        ``"none"``; ``"imagenet"`` for the encoder, from the libraries' hub or their cache; or the path of a safetensors
        file that holds the whole network or its encoder. Where ImageNet's cannot be had the network is fresh, and its
        `notes` say so.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If there is no such network, stain or file, or the file is not for this network.
    """
    spec = network_spec(name)
    if not 2 <= classes <= 255:
        raise InputError(f"A network cannot tell {classes} classes apart: there must be 2 to 255, background included.")
    if stain not in STAINS:
        raise InputError(f"A network cannot be shown '{stain}': choose one of {', '.join(STAINS)}.")
    if weights == "imagenet" and not spec.pretrained:
        raise InputError(
            f"There are no ImageNet weights for the network '{name}': leave them out or choose another network."
        )
    network = spec.build(classes, stain, weights == "imagenet")
    if weights not in ("none", "imagenet"):
        encoder = getattr(network, "encoder", None)
        parts = [encoder, getattr(encoder, "model", None)]  # timm's lie one level deeper
        load_weights(network, Path(weights), parts=[part for part in parts if part is not None])
    return network
