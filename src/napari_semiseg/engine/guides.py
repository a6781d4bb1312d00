"""The stain's threshold over every image of a run, computed where it is looked at."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.data.sources import TrainingData
from napari_semiseg.engine.typical import LARGEST, typical_of
from napari_semiseg.io.images import Image
from napari_semiseg.io.rescale import Readable, Rescaled, scaled_box
from napari_semiseg.nn.stain_scale import StainScale
from napari_semiseg.postprocess.stain_guide import MARGIN, StainGuide, find_guide

KEPT_BYTES = 256 * 2**20
_UNITS = 32  # a map is kept in bytes: 1/32 of a standard deviation, up to four of them


class StainGuides:
    """A `Guide` that needs no label: how far each pixel lies beyond the threshold on its stain.

    The map of an image of at most 4096 pixels is computed whole when it is first looked at, and kept while there is
    room. Of a slide the threshold is found on samples of its tissue, and applied to what is looked at.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[Image, StainGuide]] = {}
        self._maps: OrderedDict[int, NDArray[np.int8]] = OrderedDict()
        self._images: list[tuple[Image, float, Readable, Box]] = []

    def look_at(self, data: TrainingData) -> None:
        """Serve the images of `data` from now on. What is known of images that stay is kept."""
        self._images = []
        for image, scale in zip(data.images, data.scales, strict=True):
            readable: Readable = image if scale == 1.0 else Rescaled(image, scale)
            self._images.append((image, scale, readable, scaled_box(Box.whole(image.shape), scale)))

    def read(self, index: int, box: Box) -> NDArray[np.float32]:
        """See `data.guide.Guide`."""
        image, scale, readable, whole = self._images[index]
        found = np.zeros(box.shape, np.float32)
        common = box.intersect(whole)
        if not common.area:
            return found
        if max(whole.shape) <= LARGEST:
            part = self._map(image, scale, readable, whole)[common.slices] * np.float32(1 / _UNITS)
        else:
            around = common.grown(MARGIN).intersect(whole)
            inner = common.shifted(-around.y0, -around.x0)
            part = self._guide(image, scale).beyond(readable.read(around))[inner.slices]
        found[common.shifted(-box.y0, -box.x0).slices] = part
        return found

    def channel(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See `data.guide.Guide`."""
        found, scale, *_ = self._images[index]
        stain = StainScale.of(self._guide(found, scale))
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        channel: NDArray[np.uint8] = (stain.channel(image)[0, 0] * 255).round().byte().numpy()
        return channel

    def _map(self, image: Image, scale: float, readable: Readable, whole: Box) -> NDArray[np.int8]:
        key = id(image)  # `_found` holds the image, so that its id stays its own
        if key not in self._maps:
            beyond = self._guide(image, scale).beyond(readable.read(whole))
            self._maps[key] = np.rint(np.clip(beyond * _UNITS, -127, 127)).astype(np.int8)
            while sum(kept.nbytes for kept in self._maps.values()) > KEPT_BYTES and len(self._maps) > 1:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]

    def _guide(self, image: Image, scale: float) -> StainGuide:
        if id(image) not in self._found:
            parts, look = typical_of(image, scale)
            self._found[id(image)] = (image, find_guide(parts, look, gray=image.gray))
        return self._found[id(image)][1]
