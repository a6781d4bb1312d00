"""A network asked for its opinion while it is in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def predicted(net: nn.Module, image: Tensor) -> Tensor:
    """Return what a network says in eval mode, without gradient; afterwards it is in the mode it was in.

    Parameters
    ----------
    net : nn.Module
        Its batch statistics do not change.
    image : Tensor, (B, 3, H, W)

    Returns
    -------
    Tensor, (B, C, H, W), logits
    """
    was_training = net.training
    net.eval()
    try:
        logits: Tensor = net(image)
    finally:
        net.train(was_training)
    return logits
