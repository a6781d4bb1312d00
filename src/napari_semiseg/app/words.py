"""Numbers as a person says them."""

from __future__ import annotations

import math


def clock(seconds: float) -> str:
    """Return a time that is left: "1:32", "2:05:10"; "" where it is not known.

    Examples
    --------
    >>> clock(92.4)
    '1:32'
    >>> clock(float("nan"))
    ''
    """
    if not math.isfinite(seconds) or seconds < 0:
        return ""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def capital(sentence: str) -> str:
    """Return a sentence that begins with a capital letter."""
    return sentence[:1].upper() + sentence[1:]


def about(minutes: float) -> str:
    """Return how long something takes: "about 3 min", "about 2 h"."""
    if minutes < 1:
        return f"about {max(1, round(minutes * 60))} s"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h".replace(".0 h", " h")


def rate(per_second: float, unit: str = "step") -> str:
    """Return a speed: "14 steps/s", or "3 s/step" where that is easier to read; "" where it is not known."""
    if not math.isfinite(per_second) or per_second <= 0:
        return ""
    if per_second >= 10:
        return f"{per_second:.0f} {unit}s/s"
    return f"{per_second:.1f} {unit}s/s" if per_second >= 0.95 else f"{1 / per_second:.1f} s/{unit}"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: "1 tile", "1,240 nuclei"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
