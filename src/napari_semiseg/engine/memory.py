"""Telling that memory has run out from other errors."""

from __future__ import annotations

import torch


def out_of_memory(error: Exception) -> bool:
    """Whether an error means that memory, of the graphics card or of the machine, has run out."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in text or "t allocate mem" in text
    )
