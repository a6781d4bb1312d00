"""From pixels that count to cells that count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def whole_cells(valid: Tensor, shape: tuple[int, int] | torch.Size) -> Tensor:
    """Return the cells of a coarser grid all of whose pixels count.

    Parameters
    ----------
    valid : Tensor, (B, H, W), bool
    shape : (int, int)
        Rows and columns of the grid, h and w.

    Returns
    -------
    Tensor, (B, h, w), bool
    """
    height, width = shape
    return F.adaptive_avg_pool2d(valid.float()[:, None], (height, width))[:, 0] > 0.999
