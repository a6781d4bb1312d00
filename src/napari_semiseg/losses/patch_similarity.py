"""How alike two patches of an image are: by their pixels, by their gray values, or by features of them.

N. Boserup, R. Selvan, "Efficient self-supervision using patch-based contrastive learning for histopathology image
segmentation" (CSL), NLDL 2023, appendix C. Its Eqs. 8 to 10 define the first three; the two that compare gray values
are named there and defined by the released code alone.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from napari_semiseg.losses._reduce import in_full_precision

Similarity = Literal["mse", "ce", "cosine", "kl", "mi"]

_EDGE = 1e-6
"""How near to 0 and 1 logarithms are evaluated: log2 stays above -20."""
_GRAY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in a gray value (ITU-R BT.601)."""
_LEVELS = 25
"""Gray levels at which the joint density of "mi" is evaluated, from 0 to 1."""


def gray_values(colors: Tensor) -> Tensor:
    """Return gray values, (T, D), of patches (T, 3, D) in [0, 1]."""
    return (colors * colors.new_tensor(_GRAY)[:, None]).sum(1)


def patch_similarity(anchors: Tensor, patches: Tensor, kind: Similarity, *, bandwidth: float = 0.9) -> Tensor:
    r"""Return the similarity of each anchor to each patch.

    .. math:: s_{mse}(r, p) = -\frac{1}{D} \sum_d (r_d - p_d)^2, \qquad
              s_{ce}(r, p) = \frac{1}{D} \sum_d r_d \log_2 p_d + (1 - r_d) \log_2 (1 - p_d)

    .. math:: s_{cosine}(r, p) = \frac{r \cdot p}{\|r\| \|p\|}, \qquad
              s_{kl}(r, p) = -\frac{1}{D} \sum_d p_d (\ln p_d - \ln r_d)

    .. math:: s_{mi}(r, p) = \sum_{a, b} q_{ab} \log_2 \frac{q_{ab}}{q_a q_b}, \quad
              q_{ab} \propto \sum_d e^{-(r_d - a)^2 / 2 h^2} e^{-(p_d - b)^2 / 2 h^2}

    with a and b over 25 gray levels from 0 to 1.

    Parameters
    ----------
    anchors : Tensor, (R, D), in [0, 1]; features of any range for "cosine"
    patches : Tensor, (N, D), as the anchors
        Pixels of all colors for "mse" and "ce", gray values for "kl" and "mi", features for "cosine".
    kind : {"mse", "ce", "cosine", "kl", "mi"}
        For "ce" and "kl" all values are first brought into [1e-6, 1 - 1e-6]: at 0 the released code gives NaN. "kl"
        takes gray values for a density as they are, as the code does: they do not sum to one.
    bandwidth : float, > 0
        h of "mi", in gray values. The code's 0.9 is nearly the whole range, so that all patches have little in common;
        a level is 1 / 24.

    Returns
    -------
    Tensor, (R, N)
        At most 0 for "mse" and "ce", in [-1, 1] for "cosine", in [0, log2 25] for "mi", of either sign for "kl". Not
        symmetric for "ce" and "kl". Computed in float32 (float64 stays), whatever autocast says.

    References
    ----------
    Boserup and Selvan, NLDL 2023, Eqs. 8 to 10; "kl" and "mi" as in the released code, whose joint densities sum to one
    over all pairs together and here for each pair.
    """
    anchors, patches = in_full_precision(anchors), in_full_precision(patches)
    with torch.autocast(anchors.device.type, enabled=False):
        match kind:
            case "mse":
                squares = anchors.square().sum(1, keepdim=True) + patches.square().sum(1)
                return (2 * anchors @ patches.T - squares) / anchors.shape[1]
            case "ce":
                anchors, patches = _inside(anchors), _inside(patches)
                return (anchors @ patches.log2().T + (1 - anchors) @ (1 - patches).log2().T) / anchors.shape[1]
            case "cosine":
                return _unit(anchors) @ _unit(patches).T
            case "kl":
                anchors, patches = _inside(anchors), _inside(patches)
                return (anchors.log() @ patches.T - (patches * patches.log()).sum(1)) / anchors.shape[1]
            case "mi":
                return _mutual_information(anchors, patches, bandwidth)


def _inside(values: Tensor) -> Tensor:
    return values.clamp(_EDGE, 1 - _EDGE)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=1, eps=_EDGE)


def _mutual_information(anchors: Tensor, patches: Tensor, bandwidth: float) -> Tensor:
    """Return the mutual information of the gray values of each pair, in bits, (R, N).

    With q the joint density, i the product of its margins and d = (q - i) / i, that is Σ i ((1 + d) ln(1 + d) - d): the
    same as Σ q ln(q / i), as Σ d i is zero, but without the terms that nearly cancel. With kernels as wide as the range
    of gray two patches share 1e-8 to 1e-5 bits, of which single precision would leave nothing.
    """
    joint = torch.einsum("rda,ndb->rnab", _kernels(anchors, bandwidth), _kernels(patches, bandwidth))
    joint = joint / joint.sum((2, 3), keepdim=True)
    independent = joint.sum(3, keepdim=True) * joint.sum(2, keepdim=True)
    excess, precision = joint - independent, torch.finfo(joint.dtype)
    # Elsewhere nothing cancels that would count, and the gradient of a quotient may overflow.
    near = (excess.abs() < independent / 2) & (independent > precision.eps**2)
    more = torch.where(near, excess, 0) / torch.where(near, independent, 1)
    cancelling = independent * ((1 + more) * more.log1p() - more)
    plain = joint * (joint.clamp_min(precision.tiny).log() - independent.clamp_min(precision.tiny).log()) - excess
    nats = torch.where(near, cancelling, plain)
    return nats.sum((2, 3)) / math.log(2)


def _kernels(gray: Tensor, bandwidth: float) -> Tensor:
    """Return how near each pixel is to each gray level, (T, D, levels)."""
    levels = torch.linspace(0, 1, _LEVELS, device=gray.device, dtype=gray.dtype)
    return torch.exp(-0.5 * ((gray[..., None] - levels) / bandwidth).square())
