"""A U-Net on any encoder."""

from __future__ import annotations

from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from napari_semiseg.nn.encoders import build_encoder
from napari_semiseg.nn.network import Network

_DECODER = (256, 128, 64, 32)


class UNet(Network):
    """U-Net of segmentation-models-pytorch over an encoder of its own, of timm or of torchvision.

    The decoder ends at half the resolution, where the first skip lies: the last block of the library would only enlarge
    and smooth what is there, on four times the cells. Its reach is counted as infinite: with the usual encoders it is
    larger than a block.

    Parameters
    ----------
    classes : int
        Number of classes, with background.
    encoder : str
        ``resnet34``, ``resnet50``, ``convnext_tiny`` …
    pretrained : bool
        Whether the encoder starts from ImageNet; `notes` says if that failed.
    """

    feature_channels = _DECODER[-1]
    stride = 2
    divisor = 32
    reach = None

    def __init__(self, classes: int = 2, encoder: str = "resnet34", *, pretrained: bool = False) -> None:
        super().__init__()
        self.classes = classes
        built = build_encoder(encoder, pretrained=pretrained)
        self.color, self.encoder, self.notes = built.color, built.module, built.notes
        self.decoder = UnetDecoder(built.channels, _DECODER, n_blocks=len(_DECODER))
        self.classifier = nn.Conv2d(self.feature_channels, classes, 1)
        initialize_decoder(self.decoder)

    def features(self, image: Tensor) -> Tensor:
        """Return features, (B, 32, H / 2, W / 2), at least 0."""
        features: Tensor = self.decoder(self.encoder(self.color(image)))
        return features

    def logits_on_grid(self, features: Tensor) -> Tensor:
        """Classify every cell with one 1x1 convolution."""
        logits: Tensor = self.classifier(features)
        return logits
