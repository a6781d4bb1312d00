"""From a network and an image to a map of confidence, block by block."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_semiseg.blocks import Box, cells, plan_blocks
from napari_semiseg.engine.memory import out_of_memory
from napari_semiseg.engine.typical import typical_of
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import Image
from napari_semiseg.io.rescale import Readable, Rescaled, resample, source_box
from napari_semiseg.nn.network import PerImage
from napari_semiseg.nn.turned import TurnAveraged
from napari_semiseg.nn.two_opinions import TwoOpinions

UNBOUNDED_HALO = 64
"""Halo, in pixels, of networks whose reach is the whole image. Blocks then differ a little from the whole image."""

SMALLEST_MAP_BLOCK = 64
"""Side of a block, in pixels, below which lack of memory is no longer answered by smaller ones."""
PIXELS_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 22, "mps": 1 << 21}
"""Pixels that go through the network together, by kind of device; one block at least."""


@dataclass(frozen=True)
class BlockwiseNetwork:
    """A network that is applied to images block by block.

    Blocks lie on the network's grid in the image and read as much beyond themselves as the network sees. With a finite
    reach the result is therefore that of the whole image at once, whatever the blocks are, up to the rounding to uint8
    (at most 1 apart).

    Attributes
    ----------
    network : nn.Module
        (B, 3, H, W) in [0, 1] → logits (B, classes, H, W).
    device : torch.device
        Where it is.
    divisor : int
        Origins and sides of what it is shown are multiples of this.
    reach : int or None
        Pixels that an output pixel sees on each side; None where that is the whole image, and `UNBOUNDED_HALO` is read.
    scale : float
        Network pixels per image pixel: images are brought to the network's pixel size, and the confidence back.
    """

    network: nn.Module
    device: torch.device
    divisor: int
    reach: int | None
    scale: float = 1.0

    def plan(self, box: Box, block: int) -> Iterator[Box]:
        """Cut a rectangle of an image into blocks.

        Parameters
        ----------
        box : Box
            In pixels of the image. It may reach outside.
        block : int
            Side of a block, in pixels of the network; rounded up to a multiple of `divisor`.
        """
        size = -(-block // self.divisor) * self.divisor
        if self.scale != 1.0:
            for cell in cells(box.shape, max(1, round(size / self.scale))):
                yield cell.shifted(box.y0, box.x0)
            return
        y0, x0 = (corner // self.divisor * self.divisor for corner in (box.y0, box.x0))
        for item in plan_blocks((box.y1 - y0, box.x1 - x0), size=size, halo=0, stride=self.divisor):
            yield item.keep.shifted(y0, x0).intersect(box)

    def predict(self, image: Readable, blocks: Iterable[Box]) -> Iterator[tuple[Box, NDArray[np.uint8] | InputError]]:
        """Predict blocks, in their order; the next are read meanwhile.

        The network has to be in evaluation mode (`evaluating`).

        Parameters
        ----------
        image : Readable
        blocks : iterable of Box
            Asked for one by one, a little ahead of what is yielded. In pixels of the image.

        Yields
        ------
        block : Box
        confidence : ndarray, uint8, (classes - 1, h, w), or InputError
            Probability of each class but the background, times 255, rounded; or why the block could not be read.

        Raises
        ------
        FloatingPointError
            If the network answers with NaN or infinity.
        """
        network = at_image(self.network, image, self.scale)
        batches = self._batches(iter(blocks))
        with ThreadPoolExecutor(1, "read ahead") as reader:
            ahead = reader.submit(self._read, image, next(batches, ()))
            while batch := ahead.result():
                ahead = reader.submit(self._read, image, next(batches, ()))
                readable = [pixels for _, pixels in batch if not isinstance(pixels, InputError)]
                values = _infer_all(network, readable, self.device) if readable else []
                for block, pixels in batch:
                    yield block, pixels if isinstance(pixels, InputError) else self._kept(block, values.pop(0))

    def seen(self, block: Box) -> Box:
        """Return what the network has to be shown for a block, in pixels of the network."""
        margin = -(-halo(self.reach) // self.divisor) * self.divisor
        inner, d = self._on_network(block), self.divisor
        corners = inner.y0 // d * d, inner.x0 // d * d, -(-inner.y1 // d) * d, -(-inner.x1 // d) * d
        return Box(*corners).grown(margin)

    def _on_network(self, block: Box) -> Box:
        return block if self.scale == 1.0 else source_box(block, 1 / self.scale)

    def _batches(self, blocks: Iterator[Box]) -> Iterator[tuple[Box, ...]]:
        """Gather neighbors that are shown at one size."""
        most = PIXELS_AT_ONCE.get(self.device.type, 1 << 19)
        for shape, alike in groupby(blocks, key=lambda block: self.seen(block).shape):
            while batch := tuple(islice(alike, max(1, most // (shape[0] * shape[1])))):
                yield batch

    def _read(self, image: Readable, blocks: tuple[Box, ...]) -> list[tuple[Box, Tensor | InputError]]:
        source = image if self.scale == 1.0 else Rescaled(image, self.scale)
        found: list[tuple[Box, Tensor | InputError]] = []
        for block in blocks:
            try:
                found.append((block, torch.from_numpy(source.read(self.seen(block)))))
            except InputError as error:
                found.append((block, error))
        return found

    def _kept(self, block: Box, values: Tensor) -> NDArray[np.uint8]:
        seen, inner = self.seen(block), self._on_network(block)
        kept: NDArray[np.uint8] = values[:, *inner.shifted(-seen.y0, -seen.x0).slices].cpu().numpy()
        if self.scale == 1.0:
            return kept
        return np.moveaxis(resample(np.moveaxis(kept, 0, -1), inner, block, 1 / self.scale), -1, 0)


def confidence_map(
    network: nn.Module,
    image: Readable,
    box: Box,
    *,
    device: torch.device,
    divisor: int,
    reach: int | None,
    block: int = 1024,
    downsample: int = 1,
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Predict the confidence of a rectangle of an image.

    Parameters
    ----------
    network, device, divisor, reach, scale
        See `BlockwiseNetwork`. The network is used in evaluation mode and left in the mode it was in.
    image : Readable
        ``Image`` or anything with its `read`.
    box : Box
        Level-0 pixels of the image. It may reach outside, but is not empty.
    block : int
        Side of a block, in pixels of the network. With a finite reach it makes no difference but to memory and time.
        Where memory is short, blocks are halved.
    downsample : int
        Return every `downsample`-th row and column only, from the box's corner on.

    Returns
    -------
    ndarray, uint8, (classes - 1, ceil(h / downsample), ceil(w / downsample))
        Probability of each class but the background, times 255, rounded. With two classes that is 1 - p(background).

    Raises
    ------
    InputError
        If the image cannot be read.
    FloatingPointError
        If the network answers with NaN or infinity.
    """
    blockwise = BlockwiseNetwork(network, device, divisor, reach, scale)
    while True:
        try:
            with evaluating(network):
                return _assembled(blockwise, image, box, block, downsample)
        except (RuntimeError, MemoryError) as error:
            if block <= SMALLEST_MAP_BLOCK or not out_of_memory(error):
                raise
        block //= 2  # only here: the error held the tensors of the block
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _assembled(
    blockwise: BlockwiseNetwork, image: Readable, box: Box, block: int, downsample: int
) -> NDArray[np.uint8]:
    confidence: NDArray[np.uint8] | None = None
    for part, values in blockwise.predict(image, blockwise.plan(box, block)):
        if isinstance(values, InputError):
            raise values
        if confidence is None:
            shape = -(-box.height // downsample), -(-box.width // downsample)
            confidence = np.zeros((len(values), *shape), np.uint8)
        _thin(confidence, values, part.shifted(-box.y0, -box.x0), downsample)
    assert confidence is not None, "an empty box has no confidence"
    return confidence


def at_image(network: nn.Module, image: Readable, scale: float = 1.0) -> nn.Module:
    """Return what predicts this image: the network itself, unless it answers otherwise for each image.

    That is one that first looks at the image as a whole, or one that was taught by this very image.

    Parameters
    ----------
    network : nn.Module
    image : Readable
    scale : float
        Network pixels per image pixel.
    """
    if isinstance(network, TurnAveraged):
        alone = at_image(network.network, image, scale)
        pixels = math.prod(image.shape) if isinstance(image, Image) else 0
        return network.of(alone) if network.averages(pixels) else alone
    if isinstance(network, TwoOpinions) and isinstance(image, Image) and network.homes:
        network = _at_home(network, image.identity) if image.identity in network.homes else network
    if isinstance(network, PerImage) and isinstance(image, Image):
        return _at_image(network, image, scale)
    return network


@lru_cache(maxsize=64)
def _at_home(network: TwoOpinions, image: str) -> TwoOpinions:
    return network.at_home(image)


@lru_cache(maxsize=64)
def _at_image(network: PerImage, image: Image, scale: float) -> nn.Module:
    parts, look = typical_of(image, scale)
    return network.for_image(parts, look, gray=image.gray).eval()


def halo(reach: int | None) -> int:
    """Return the pixels to read beyond a block."""
    return UNBOUNDED_HALO if reach is None else reach


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def weights_digest(network: nn.Module) -> str:
    """Return a hash of all weights (sha256, hexadecimal): the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _infer_all(network: nn.Module, pixels: list[Tensor], device: torch.device) -> list[Tensor]:
    """Predict blocks of one size together, or where memory is short for that, in halves."""
    try:
        return list(_infer(network, torch.stack(pixels).to(device)))
    except (RuntimeError, MemoryError) as error:
        if len(pixels) == 1 or not out_of_memory(error):
            raise
    middle = len(pixels) // 2  # only here: the error held the tensors of all
    return [*_infer_all(network, pixels[:middle], device), *_infer_all(network, pixels[middle:], device)]


@torch.inference_mode()
def _infer(network: nn.Module, pixels: Tensor) -> Tensor:
    """Pixels (B, H, W, 3), uint8 → confidence (B, classes - 1, H, W), uint8."""
    image = pixels.permute(0, 3, 1, 2).float() / 255  # channels last in memory, as they were read
    probs: Tensor = network(image).float().softmax(1)[:, 1:]
    if not bool(torch.isfinite(probs).all()):
        raise FloatingPointError("the network answered with values that are not finite")
    return (probs * 255).round().to(torch.uint8)


def _thin(confidence: NDArray[np.uint8], values: NDArray[np.uint8], part: Box, step: int) -> None:
    """Write every `step`-th pixel of a part that begins anywhere."""
    dy, dx = -part.y0 % step, -part.x0 % step
    kept = values[:, dy::step, dx::step]
    y, x = (part.y0 + dy) // step, (part.x0 + dx) // step
    confidence[:, y : y + kept.shape[1], x : x + kept.shape[2]] = kept
