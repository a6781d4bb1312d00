"""How a loss is held against the plain loops of its paper."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture
def agree() -> Callable[..., None]:
    """Return a function that asserts two losses to be equal, with their gradients for the inputs given after them.

    Equal to 1e-9 of the largest entry, each tensor on its own.
    """

    def assert_agree(found: Tensor, expected: Tensor, *inputs: Tensor, relative: float = 1e-9) -> None:
        here = [found.detach(), *torch.autograd.grad(found, inputs, retain_graph=True)]
        there = [expected.detach(), *torch.autograd.grad(expected, inputs, retain_graph=True)]
        for a, b in zip(here, there, strict=True):
            scale = max(float(b.abs().max()), math.ulp(1.0))
            torch.testing.assert_close(a, b, rtol=0.0, atol=relative * scale)

    return assert_agree
