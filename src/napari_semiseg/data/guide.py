"""What the sampler asks of whoever knows where nuclei may be before anybody has painted them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box


class Guide(Protocol):
    """A map over every image of a run: positive where nuclei may be, negative where not, near zero in doubt."""

    def read(self, index: int, box: Box) -> NDArray[np.float32]:
        """Return a rectangle of the map, (h, w), of the image `index`; zero where it reaches outside.

        The rectangle counts in the pixels that the run works with.
        """

    def channel(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the fourth channel of some pixels of the image `index`: (h, w, 3) → (h, w).

        How much stain there is, on the image's own scale: 128 at its threshold.
        """
