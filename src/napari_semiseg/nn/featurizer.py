"""The featurizer of CSL: from the gray values of a patch to a short vector."""

from __future__ import annotations

from torch import Tensor, nn

FEATURES = 32
CHANNELS = 8
SMALLEST = 15
"""Side of the smallest patch, in pixels, that three convolutions leave something of."""


class PatchFeaturizer(nn.Module):
    """Three 3x3 convolutions, the last two with stride 2 and dilation 2, and a linear layer.

    Batch normalization and ELU follow every convolution.

    Parameters
    ----------
    size : int, >= 15
        Side of a patch, in pixels.

    References
    ----------
    CSL (patch-entropy contrastive self-supervision), released code; 3,386 parameters at 50 pixels.
    """

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        if size < SMALLEST:
            raise ValueError(f"A patch of {size} pixels has no features: it needs {SMALLEST}.")
        side = _strided(_strided(size - 2))
        self.layers = nn.Sequential(
            *_block(1, CHANNELS, bias=True),
            *_block(CHANNELS, CHANNELS, stride=2, dilation=2, bias=False),
            *_block(CHANNELS, 1, stride=2, dilation=2, bias=False),
            nn.Flatten(),
            nn.Linear(side**2, FEATURES),
        )

    def forward(self, gray: Tensor) -> Tensor:
        """Return features, (T, 32), of gray patches (T, 1, size, size)."""
        features: Tensor = self.layers(gray)
        return features


def _strided(side: int) -> int:
    """Return the side that a 3x3 convolution with stride 2 and dilation 2 leaves."""
    return (side - 5) // 2 + 1


def _block(incoming: int, outgoing: int, *, stride: int = 1, dilation: int = 1, bias: bool) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(incoming, outgoing, 3, stride=stride, dilation=dilation, bias=bias)
    return convolution, nn.BatchNorm2d(outgoing), nn.ELU()
