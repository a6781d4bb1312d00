"""From amounts of stain to colors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.synthetic._noise import Map, normal, uniform

_HEMATOXYLIN = np.array([0.62, 0.70, 0.35])
_EOSIN = np.array([0.22, 0.83, 0.51])
_VECTORS, _AMOUNTS, _LIGHT = range(70, 73)


@dataclass(frozen=True)
class Stain:
    """The stains and the lamp of one slide.

    Attributes
    ----------
    hematoxylin, eosin : ndarray, (3,)
        Optical density (natural logarithm) of one unit of stain in R, G, B.
    light : ndarray, (3,)
        Intensity of bare glass, 0 to 255.
    """

    hematoxylin: NDArray[np.float32]
    eosin: NDArray[np.float32]
    light: NDArray[np.float32]

    @classmethod
    def of_slide(cls, seed: int, variation: float) -> Stain:
        """Draw the stains of a slide; `variation` 0 is the textbook, 1 is what differs between laboratories.

        The mean vectors lie between those of Ruifrok and Johnston (2001) and of Macenko et al. (2009).
        """

        def drawn(vector: NDArray[np.float64], number: int) -> NDArray[np.float64]:
            vector = vector + 0.05 * variation * normal(seed, _VECTORS, number, np.arange(3))
            amount = np.exp(0.16 * variation * normal(seed, _AMOUNTS, number))
            return np.asarray(amount * np.clip(vector, 0.02, None) / np.linalg.norm(vector))

        light = 243 + 6 * variation * (uniform(seed, _LIGHT, np.arange(3)) - 0.5)
        return cls(*(values.astype(np.float32) for values in (drawn(_HEMATOXYLIN, 1), drawn(_EOSIN, 2), light)))

    def color(self, hematoxylin: Map, eosin: Map, grain: Map) -> NDArray[np.uint8]:
        """Let light through the stains (Beer-Lambert) onto a camera.

        Parameters
        ----------
        hematoxylin, eosin : ndarray, float32, (h, w)
            Amounts of stain.
        grain : ndarray, float32, (h, w)
            Noise of the camera, mean 0, variance 1.

        Returns
        -------
        ndarray, uint8, (h, w, 3)
            RGB.
        """
        rgb = np.empty((*hematoxylin.shape, 3), np.uint8)
        for channel in range(3):
            density = hematoxylin * self.hematoxylin[channel]
            density += eosin * self.eosin[channel]
            np.negative(density, out=density)
            np.exp(density, out=density)
            density *= self.light[channel]
            density += grain * np.float32(1.6)
            rgb[..., channel] = np.clip(density, 0, 255).astype(np.uint8)
        return rgb
