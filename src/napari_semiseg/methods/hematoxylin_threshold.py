"""Otsu's threshold on the hematoxylin channel: the row that every table starts with.

N. Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man, and Cybernetics
9, 1979; A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by color deconvolution", Analytical
and Quantitative Cytology and Histology 23, 2001.

    nucleus  ⟺  (G_1 * H)(x) > t,    t = argmax_t w_0 w_1 (μ_0 - μ_1)²       for each image

paper     here
H         hematoxylin, first channel of `skimage.color.rgb2hed`; intensity, of found polarity, where there is no stain
G_1       a Gaussian of sigma 1, ours
t         Otsu's, 256 bins, over the image; over samples of the tissue of a slide

No label, no training. Nothing is fitted: the predictor finds the threshold of every image that it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.methods._base import FittedMethod, MethodConfig, Task
from napari_semiseg.nn.network import Network, PerImage
from napari_semiseg.nn.threshold import image_bytes, two_logits
from napari_semiseg.postprocess.threshold import REACH, Threshold, find_stain, find_threshold
from napari_semiseg.works import OTSU, RUIFROK


class HematoxylinThresholdConfig(MethodConfig):
    """There is nothing to set."""


class HematoxylinThreshold(FittedMethod):
    """The threshold that needs no label and no training."""

    name: ClassVar[str] = "hematoxylin_threshold"
    title: ClassVar[str] = "No labels: threshold on the stain"
    does: ClassVar[str] = (
        "Nothing was trained: a pixel is nucleus where the smoothed hematoxylin of its image, separated by "
        "color deconvolution, lies above Otsu's threshold; where there is no stain, its intensity."
    )
    references: ClassVar[tuple[str, ...]] = (OTSU, RUIFROK)
    Config: ClassVar[type[MethodConfig]] = HematoxylinThresholdConfig
    views: ClassVar[Views] = Views(labeled=False)
    labels: ClassVar[Literal["needed", "used", "unused"]] = "unused"
    classes: ClassVar[Literal["two", "any"]] = "two"
    random: ClassVar[bool] = False

    def __init__(self, new_network: Callable[[], Network], task: Task, config: HematoxylinThresholdConfig) -> None:
        super().__init__(new_network, task, config)
        self.threshold = StainThreshold()

    def fit(self, regions: Iterable[Batch]) -> None:
        """Do nothing: each image has a threshold of its own."""

    def predictor(self) -> nn.Module:
        """Return the threshold."""
        return self.threshold


class StainThreshold(PerImage):
    """Otsu's threshold on the hematoxylin of each image, on its intensity where it is not stained.

    The same as the proposal that an image is opened with (`postprocess.proposal`), but for images of a single dye:
    there that looks at green light, and this stays with its name. Nothing in it was learned.
    """

    classes = 2
    divisor = 1
    reach = REACH

    def for_image(self, parts: Sequence[NDArray[np.uint8]], look: NDArray[np.uint8], *, gray: bool) -> nn.Module:
        """See `PerImage`."""
        return _Found(find_threshold(parts, find_stain(look, gray)))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, 2, H, W), each image of the batch with a threshold of its own."""
        found = [
            self.for_image([pixels], pixels, gray=bool(np.ptp(pixels, -1).max() == 0)) for pixels in image_bytes(image)
        ]
        return torch.cat([one(crop[None]) for one, crop in zip(found, image, strict=True)])


class _Found(nn.Module):
    """A threshold that was found for an image."""

    def __init__(self, threshold: Threshold) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, image: Tensor) -> Tensor:
        confidence = np.stack([self.threshold.confidence(pixels) for pixels in image_bytes(image)])
        probs = torch.from_numpy(confidence.astype(np.float32)).clamp(0.25, 254.75) / 255
        return two_logits(probs.logit().to(image.device))
