"""How much a pixel is stained, on a scale of its image's own.

A dark slide's background is stained as a pale slide's nuclei are. What tells them apart is where a pixel lies between
the two in its own image; a network that is shown this need not guess it from a crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_semiseg.nn.stain import Stain, hematoxylin

UNITS = 8.0
"""Standard deviations that the channel spans: from -4 to 4."""


@dataclass(frozen=True)
class StainScale:
    """What zero and one mean in an image.

    Attributes
    ----------
    stain : {"hematoxylin", "intensity", "inverted"}
        What nuclei stand out by.
    level : float
        Otsu's threshold over the image: optical density of hematoxylin in the unit of `hematoxylin`, or intensity from
        0 to 255.
    spread : float
        Standard deviation over the image, same unit; 0 in an image that is all one color.
    """

    stain: Stain
    level: float
    spread: float

    def channel(self, image: Tensor) -> Tensor:
        """Return how far each pixel lies beyond the threshold.

        Parameters
        ----------
        image : Tensor, (B, 3, H, W), in [0, 1]

        Returns
        -------
        Tensor, (B, 1, H, W), in [0, 1]
            0.5 at the threshold, more where there is more stain; `UNITS` standard deviations make 1.
        """
        if not self.spread:
            return torch.full_like(image[:, :1], 0.5)
        beyond = (self._density(image) - self.level) / self.spread
        return (beyond / UNITS + 0.5).clamp(0, 1)

    def _density(self, image: Tensor) -> Tensor:
        if self.stain == "hematoxylin":
            return hematoxylin(image)
        strongest = 255 * image.amax(1, keepdim=True)
        return strongest if self.stain == "intensity" else 255 - strongest
