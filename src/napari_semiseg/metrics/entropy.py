"""How much a probability leaves open."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr


def binary_entropy(probability: ArrayLike) -> NDArray[np.float64]:
    r"""Entropy of a choice between two, in bits.

    .. math:: H(p) = -p \log_2 p - (1 - p) \log_2 (1 - p)

    Parameters
    ----------
    probability : array of any shape, in [0, 1]
        Of one of the two.

    Returns
    -------
    array of that shape, float64, in [0, 1] bits
        0 at 0 and at 1; minus infinity outside of [0, 1], where nothing is a probability.

    Examples
    --------
    >>> binary_entropy([0, 0.5, 1]).tolist()
    [0.0, 1.0, 0.0]
    """
    share = np.asarray(probability, np.float64)
    return np.asarray((entr(share) + entr(1 - share)) / np.log(2))
