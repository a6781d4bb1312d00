"""A map made to stand out from its own neighborhood."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBORHOOD = 8.0
"""Standard deviation, in pixels, of the Gaussian that weighs a neighborhood: about the radius of a nucleus at 40x."""
_CUT = 2
"""Standard deviations after which that Gaussian is cut off."""


class LocalContrast(nn.Module):
    """Add to each value what it has more than the mean of its neighborhood: x + γ (x - x̄), an unsharp mask.

    Where nuclei touch, a network whose features lie on a coarser grid is nearly as sure between them as in them, and on
    a slide that is not like those that it has learned from it is too sure, or too little, of whole regions. Both are
    less in x - x̄.

    Parameters
    ----------
    amount : float
        γ; 0 leaves a map as it is.
    stride : int
        Pixels per cell of the maps.
    """

    kernel: Tensor

    def __init__(self, amount: float, stride: int) -> None:
        super().__init__()
        self.amount = amount
        sigma = NEIGHBORHOOD / stride
        self._radius = round(_CUT * sigma)
        at = torch.arange(-self._radius, self._radius + 1, dtype=torch.float32)
        self.register_buffer("kernel", torch.exp(-0.5 * (at / sigma) ** 2), persistent=False)
        self.reach = self._radius * stride if amount else 0
        """Pixels on each side that a value depends on."""

    def forward(self, values: Tensor) -> Tensor:
        """Return maps (B, 1, h, w) with more contrast; what lies outside of them counts for nothing."""
        if not self.amount:
            return values
        mean = self._blurred(values) / self._blurred(torch.ones_like(values[:1]))
        return values + self.amount * (values - mean)

    def _blurred(self, values: Tensor) -> Tensor:
        down, across = self.kernel.view(1, 1, -1, 1), self.kernel.view(1, 1, 1, -1)
        return F.conv2d(F.conv2d(values, down, padding=(self._radius, 0)), across, padding=(0, self._radius))
