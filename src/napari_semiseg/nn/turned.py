"""A network that looks at its input from several sides and averages what it sees."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Sides = Literal[1, 4, 8]


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
    """

    def __init__(self, network: nn.Module, turns: Sides) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("turns", torch.tensor(turns))  # weights and turns together say what a result is of
        self._turns = turns
        self._sides = [(quarter, mirrored) for mirrored in (False, True)[: turns // 4] for quarter in range(4)]

    def of(self, network: nn.Module) -> TurnAveraged:
        """Return the mean over the same sides of another network."""
        if network is self.network:
            return self
        return TurnAveraged(network, self._turns).to(self.get_buffer("turns").device)

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
