"""The mean of a map around each of its places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBORHOOD = 16.0
"""Standard deviation, in pixels, of the Gaussian that weighs a neighborhood: it holds a nucleus at 40x, and what is
around it."""
_CUT = 2
"""Standard deviations after which that Gaussian is cut off."""


class Neighborhood(nn.Module):
    """Mean over the neighborhood of each place; what lies outside of the map counts for nothing.

    Parameters
    ----------
    stride : int
        Pixels per cell of the maps.

    Attributes
    ----------
    reach : int
        Pixels on each side that a mean depends on.
    """

    kernel: Tensor

    def __init__(self, stride: int) -> None:
        super().__init__()
        sigma = NEIGHBORHOOD / stride
        self._radius = round(_CUT * sigma)
        self.reach = self._radius * stride
        at = torch.arange(-self._radius, self._radius + 1, dtype=torch.float32)
        self.register_buffer("kernel", torch.exp(-0.5 * (at / sigma) ** 2), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return the means of maps, (B, C, h, w)."""
        flat = values.flatten(0, 1)[:, None]
        mean = self._summed(flat) / self._summed(torch.ones_like(flat[:1]))
        return mean.reshape(values.shape)

    def _summed(self, values: Tensor) -> Tensor:
        down, across = self.kernel.view(1, 1, -1, 1), self.kernel.view(1, 1, 1, -1)
        return F.conv2d(F.conv2d(values, down, padding=(self._radius, 0)), across, padding=(0, self._radius))
