"""Flips, quarter turns and small changes of scale of maps, with gradient: each map of a batch in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Turns:
    """What is done to each map of a batch: a vertical flip, then quarter turns, then a magnification about the center.

    Attributes
    ----------
    flips : Tensor, (B,), bool
    quarters : Tensor, (B,), int64, 0 to 3
        Counterclockwise.
    scales : Tensor, (B,), positive, or None
        Above 1 the border leaves the frame, below 1 nothing is known at the border. None leaves the grid as it is, and
        no value is interpolated.
    """

    flips: Tensor
    quarters: Tensor
    scales: Tensor | None = None

    @classmethod
    def draw(cls, count: int, scale: float = 0.0) -> Self:
        """Draw from torch's global generator: flips by a coin, turns and scales (within 1 ± `scale`) evenly."""
        flips, quarters = torch.rand(count) < 0.5, torch.randint(4, (count,))
        return cls(flips, quarters, 1 + scale * (2 * torch.rand(count) - 1) if scale else None)

    def apply(self, maps: Tensor, *, outside: Literal["border", "zeros"] = "border") -> Tensor:
        """Turn maps.

        Parameters
        ----------
        maps : Tensor, (B, C, S, S)
            Interpolated bilinearly where there is a scale.
        outside : {"border", "zeros"}
            What is seen where nothing is known.

        Returns
        -------
        Tensor, the same shape
        """
        turned = torch.stack(
            [
                torch.rot90(one.flip(-2) if flip else one, quarters, (-2, -1))
                for one, flip, quarters in zip(maps, self.flips.tolist(), self.quarters.tolist(), strict=True)
            ]
        )
        if self.scales is None:
            return turned
        inverse = 1 / self.scales.to(turned)
        matrix = torch.zeros(len(turned), 2, 3, dtype=turned.dtype, device=turned.device)
        matrix[:, 0, 0] = matrix[:, 1, 1] = inverse
        grid = F.affine_grid(matrix, list(turned.shape), align_corners=False)
        return F.grid_sample(turned, grid, mode="bilinear", padding_mode=outside, align_corners=False)

    def apply_mask(self, mask: Tensor) -> Tensor:
        """Turn a mask, (B, S, S): what remains true is made of true pixels only, and lies within the frame."""
        return self.apply(mask[:, None].float(), outside="zeros")[:, 0] > 0.999
