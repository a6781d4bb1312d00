"""Which input pixels an output pixel depends on, counted back layer by layer along one axis.

A `Span` holds the first and the last index. Each function takes the span of a layer's output and returns that of its
input.
"""

from __future__ import annotations

from collections.abc import Callable

Span = tuple[int, int]


def through_convolution(span: Span, kernel: int = 3, *, stride: int = 1, dilation: int = 1) -> Span:
    """Return the span that a convolution reads; its padding is ``dilation * (kernel - 1) // 2``."""
    margin = dilation * (kernel - 1) // 2
    return span[0] * stride - margin, span[1] * stride + margin


def through_bilinear(span: Span, scale: int) -> Span:
    """Return the span that bilinear upsampling (``align_corners=False``) reads: around ``(i + 1/2) / scale - 1/2``."""
    first, last = (2 * index + 1 - scale for index in span)
    return first // (2 * scale), -(-last // (2 * scale))


def union(one: Span, other: Span) -> Span:
    """Return the smallest span that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])


def reach(traced: Callable[[Span], Span], period: int) -> int:
    """Return the largest distance between an output pixel and an input pixel that it depends on.

    Parameters
    ----------
    traced : callable
        Returns the span of input pixels behind a span of output pixels.
    period : int
        The network's divisor: output pixels that far apart see alike.
    """
    spans = [(pixel, *traced((pixel, pixel))) for pixel in range(period)]
    return max(max(pixel - first, last - pixel) for pixel, first, last in spans)
