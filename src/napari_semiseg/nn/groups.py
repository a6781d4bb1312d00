"""Parameters that are trained at different rates."""

from __future__ import annotations

from typing import Any

from torch import nn


def encoder_apart(method: nn.Module, net: nn.Module, lr_scale: float) -> list[dict[str, Any]]:
    """Return what a method trains in groups: the encoder of its network at its own rate, and the rest.

    Parameters
    ----------
    method : nn.Module
        Holds `net`. Parameters that want no gradient are in no group.
    net : nn.Module
        Without an attribute `encoder`, all of it belongs to the rest.
    lr_scale : float
        What the rate is multiplied by for the encoder. Papers train a pretrained one at a tenth.
    """
    encoder = getattr(net, "encoder", None)
    inside = {id(p) for p in encoder.parameters()} if isinstance(encoder, nn.Module) else set()
    trained = [p for p in method.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if id(p) not in inside]}]
    if slow := [p for p in trained if id(p) in inside]:
        groups.append({"params": slow, "lr_scale": lr_scale})  # type: ignore[dict-item]
    return groups
