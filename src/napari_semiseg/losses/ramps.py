"""Weights and rates as functions of the step. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

Ramp = Literal["gaussian", "linear", "cosine", "log", "exp"]


def sigmoid_rampup(step: float, length: float) -> float:
    r"""Return the Gaussian ramp :math:`\exp(-5 (1 - t / T)^2)`, known as the sigmoid ramp-up.

    Parameters
    ----------
    step : float
        t. Clipped to [0, `length`].
    length : float, >= 0
        T. Steps until the weight is 1; with 0 it is 1 from the start.

    Returns
    -------
    float, in [exp(-5), 1]

    References
    ----------
    Laine and Aila, ICLR 2017, for "sigmoid"; used by Mean Teacher (NeurIPS 2017) and CDCL (CVPR 2022).

    Examples
    --------
    >>> round(sigmoid_rampup(0, 80), 6), round(sigmoid_rampup(40, 80), 6), sigmoid_rampup(80, 80)
    (0.006738, 0.286505, 1.0)
    """
    return math.exp(-5.0 * (1.0 - _progress(step, length)) ** 2)


def linear_rampup(step: float, length: float) -> float:
    """Return t / T, clipped to [0, 1]; 1 where T is 0."""
    return _progress(step, length)


def cosine_rampup(step: float, length: float) -> float:
    """Return 1 - (cos(π t / T) + 1) / 2 with t / T clipped to [0, 1]; 1 where T is 0."""
    return 1.0 - (math.cos(math.pi * _progress(step, length)) + 1.0) / 2.0


def log_rampup(step: float, length: float) -> float:
    """Return 1 - exp(-5 t / T) with t / T clipped to [0, 1]: 0.99326 at the end, never 1; but 1 where T is 0."""
    return 1.0 - math.exp(-5.0 * _progress(step, length)) if length > 0 else 1.0


def exp_rampup(step: float, length: float) -> float:
    """Return exp(5 (t / T - 1)) with t / T clipped to [0, 1]; 1 where T is 0."""
    return math.exp(5.0 * (_progress(step, length) - 1.0))


RAMPS: Mapping[Ramp, Callable[[float, float], float]] = MappingProxyType(
    {
        "gaussian": sigmoid_rampup,
        "linear": linear_rampup,
        "cosine": cosine_rampup,
        "log": log_rampup,
        "exp": exp_rampup,
    }
)
"""The forms that the released codes of CDCL and of CCT offer; their configurations take the first, as all papers do."""


def poly(step: float, steps: float, *, power: float = 0.9, warmup: float = 0) -> float:
    r"""Return the factor of the learning rate, :math:`(1 - t / T)^{0.9}`.

    Parameters
    ----------
    step : float
        t, from 0 to T - 1 in a run. Clipped to [0, T].
    steps : float, > 0
        T. All steps of the run.
    power : float
        The exponent.
    warmup : float, >= 0
        Steps at the start in which the factor is t / `warmup` in place of the polynomial.

    Returns
    -------
    float, in [0, 1]

    References
    ----------
    Chen et al. (DeepLab), TPAMI 2018, section 4.1.

    Examples
    --------
    >>> poly(0, 100), round(poly(50, 100), 6), poly(5, 100, warmup=10)
    (1.0, 0.535887, 0.5)
    """
    if step < warmup:
        return _progress(step, warmup)
    return float((1.0 - _progress(step, steps)) ** power)


def _progress(step: float, length: float) -> float:
    return min(max(step, 0.0), length) / length if length > 0 else 1.0
