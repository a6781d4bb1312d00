"""A network that looks at its input from several sides and averages what it sees."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Sides = Literal[1, 4, 8]
Looks = Sides | Literal["auto"]
"""From how many sides each pixel is looked at; "auto": 4 in images of at most `FIELD` pixels, 1 in larger ones."""

FIELD = 2048 * 2048
"""Pixels of the largest image that counts as a field of view: there four looks take seconds, on a slide hours."""


class TurnAveraged(nn.Module):
    """The mean of a network's probabilities over quarter turns of its input, and over their mirror images.

    A nucleus has no upright: whatever a network has learned of one direction only averages out. A prediction takes
    `turns` times as long.

    Parameters
    ----------
    network : nn.Module
        (B, 3, H, W) → logits (B, classes, H, W).
    turns : {4, 8}
        4: quarter turns; 8: those and their mirror images.
    largest : int, optional
        Pixels of the largest image that is looked at so; at a larger one the network looks alone (`averages`).
    """

    def __init__(self, network: nn.Module, turns: Sides, largest: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("turns", torch.tensor(turns))  # weights and turns together say what a result is of
        if largest is not None:
            self.register_buffer("largest", torch.tensor(largest))
        self._turns, self._largest = turns, largest
        self._sides = [(quarter, mirrored) for mirrored in (False, True)[: turns // 4] for quarter in range(4)]

    def of(self, network: nn.Module) -> TurnAveraged:
        """Return the mean over the same sides of another network."""
        if network is self.network:
            return self
        return TurnAveraged(network, self._turns, self._largest).to(self.get_buffer("turns").device)

    def averages(self, pixels: int) -> bool:
        """Whether an image of so many pixels is looked at from several sides."""
        return self._largest is None or pixels <= self._largest

    def forward(self, image: Tensor) -> Tensor:
        """Return logits whose softmax is the mean of the probabilities: their logarithm."""
        total: Tensor | None = None
        for quarter, mirrored in self._sides:
            seen = torch.rot90(image.flip(-1) if mirrored else image, quarter, (-2, -1))
            probs = torch.rot90(self.network(seen).float().softmax(1), -quarter, (-2, -1))
            probs = probs.flip(-1) if mirrored else probs
            total = probs if total is None else total + probs
        assert total is not None
        return (total / len(self._sides)).clamp_min(torch.finfo(torch.float32).tiny).log()
