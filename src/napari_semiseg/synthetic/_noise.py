"""Random numbers that depend on where they are asked for, never on what was asked before."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]
Map = NDArray[np.float32]


def uniform(seed: int, stream: int, *counters: ArrayLike) -> Floats:
    """Hash integers to uniform random numbers.

    Parameters
    ----------
    seed, stream : int
        The slide, and what the number is for.
    *counters : array_like of int
        Position, broadcast together; negative values are allowed.

    Returns
    -------
    ndarray, float64, broadcast shape, in [0, 1)
        The same numbers for the same arguments, on every machine.

    References
    ----------
    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014: the finalizer of SplitMix64.
    """
    state = np.full((), seed % 2**64, np.uint64)
    with np.errstate(over="ignore"):  # wrapping around is what a hash does
        for word in (stream, *counters):
            state = _mixed(state + _GOLDEN * (np.asarray(word, np.int64).astype(np.uint64) + np.uint64(1)))
    return np.asarray((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def normal(seed: int, stream: int, *counters: ArrayLike) -> Floats:
    """Hash integers to random numbers of mean 0 and variance 1: the sum of three uniform ones, so never beyond 3."""
    total = sum(uniform(seed, stream + part, *counters) for part in (0x1000, 0x2000, 0x3000))
    return np.asarray((total - 1.5) * 2.0)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = np.asarray((state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    state = np.asarray((state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.asarray(state ^ (state >> np.uint64(31)))


class SmoothField:
    """A smooth random field over the plane that never repeats: a sum of plane waves.

    Parameters
    ----------
    seed, stream : int
        The slide, and what the field is for.
    wavelength : float
        Typical distance between two hills, in µm.
    waves : int
        Number of plane waves. Mean 0, variance 1, close to normal for 12 and more.
    """

    def __init__(self, seed: int, stream: int, wavelength: float, waves: int = 16) -> None:
        index = np.arange(waves)
        direction = 2 * np.pi * (index + uniform(seed, stream, 1, index)) / waves
        length = 2 * np.pi / wavelength * np.exp(0.35 * normal(seed, stream, 2, index))
        self._ky = length * np.sin(direction)
        self._kx = length * np.cos(direction)
        self._phase = 2 * np.pi * uniform(seed, stream, 3, index)
        self._amplitude = np.sqrt(2 / waves)

    def grid(self, y: Floats, x: Floats) -> Floats:
        """Return the values (rows, columns) at rows `y` and columns `x`, both in µm."""
        rows = np.outer(y, self._ky)
        columns = np.outer(x, self._kx) + self._phase
        # cos(a + b) = cos a cos b - sin a sin b makes the sum of waves a product of thin matrices; not by BLAS, whose
        # last digits depend on the number of threads
        left = np.concatenate([np.cos(rows), -np.sin(rows)], axis=1)
        right = np.concatenate([np.cos(columns), np.sin(columns)], axis=1)
        return np.asarray(self._amplitude * np.einsum("yk,xk->yx", left, right))

    def at(self, y: Floats, x: Floats) -> Floats:
        """Return the values (n,) at n points, in µm."""
        return np.asarray(self._amplitude * np.cos(self._angles(y, x)).sum(axis=1))

    def gradient(self, y: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Return the slopes (n,) along y and along x at n points, per µm."""
        slope = -self._amplitude * np.sin(self._angles(y, x))
        return np.asarray((slope * self._ky).sum(axis=1)), np.asarray((slope * self._kx).sum(axis=1))

    def _angles(self, y: Floats, x: Floats) -> Floats:
        return np.asarray(np.outer(y, self._ky) + np.outer(x, self._kx) + self._phase)


class Grain:
    """A fine random texture with mean 0 and variance 1, repeated every `period` pixels.

    Two grains with coprime periods laid over each other do not repeat within any slide.

    Parameters
    ----------
    seed, stream : int
        The slide, and what the texture is for.
    sigma : float
        Width of the Gaussian that the noise is smoothed with, in pixels.
    period : int
        Pixels.
    reach : int
        Largest side of a window, in pixels.
    """

    def __init__(self, seed: int, stream: int, sigma: float, period: int, reach: int) -> None:
        noise = normal(seed, stream, np.arange(period)[:, None], np.arange(period))
        noise = gaussian_filter(noise, sigma, mode="wrap")
        noise = ((noise - noise.mean()) / noise.std()).astype(np.float32)
        self._period = period
        self._texture: Map = np.pad(noise, ((0, reach), (0, reach)), mode="wrap")

    def window(self, y0: int, x0: int, height: int, width: int) -> Map:
        """Return a view (height, width) of the texture at a pixel position of the slide. Not to be written to."""
        y, x = y0 % self._period, x0 % self._period
        return self._texture[y : y + height, x : x + width]
