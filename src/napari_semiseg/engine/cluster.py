"""Blocks of a slide predicted by the workers of a Dask cluster; one process, this one, writes the result."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.infer import BlockwiseNetwork, evaluating, weights_digest
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.locate import locate
from napari_semiseg.nn.turned import Sides

BLOCKS_PER_THREAD = 2
"""Blocks that each thread of the cluster is given ahead."""
PATIENCE_S = 20


@dataclass(frozen=True)
class Assignment:
    """What a worker has to know to predict blocks of an image; run and image lie where they lie for us.

    `weights` and `pixels` are hashes: what a worker has open is used again only if it is still the same.
    """

    run: str
    weights: str
    image: str
    pixels: str
    mpp: float | None
    scale: float
    device: str
    turns: Sides = 1


class Cluster:
    """The workers behind a scheduler. Made by `connected`.

    Parameters
    ----------
    client : distributed.Client
    run, device : str
        Run folder, as the workers see it, and what ``--device`` says.
    turns : {1, 4, 8}
        What ``--turns`` says.
    """

    def __init__(self, client: Any, run: str, device: str, turns: Sides) -> None:
        self._client, self._run, self._device, self._turns = client, run, device, turns

    def predict(
        self, network: BlockwiseNetwork, image: Image, blocks: Iterable[Box]
    ) -> Iterator[tuple[Box, NDArray[np.uint8] | InputError]]:
        """Do what `BlockwiseNetwork.predict` does, elsewhere: blocks come in the order in which they were given out."""
        if not image.source:
            raise InputError(f"'{image.name}' is in no file that the workers could read: save it first.")
        work = Assignment(
            self._run,
            weights_digest(network.network),
            image.source if locate(image.source).is_url else str(Path(image.source).resolve()),
            image.fingerprint(),
            image.mpp,
            network.scale,
            self._device,
            self._turns,
        )
        ahead: deque[tuple[Box, Any]] = deque()
        for block in blocks:
            ahead.append((block, self._client.submit(predict_block, work, tuple(block), pure=False)))
            while len(ahead) >= BLOCKS_PER_THREAD * max(1, sum(self._client.nthreads().values())):
                yield self._answer(*ahead.popleft())
        while ahead:
            yield self._answer(*ahead.popleft())

    def _answer(self, block: Box, future: Any) -> tuple[Box, NDArray[np.uint8] | InputError]:
        try:
            return block, future.result()
        except InputError as error:
            return block, error


@contextmanager
def connected(scheduler: str, run: str, device: str, turns: Sides = 1) -> Iterator[Cluster]:
    """Connect to a scheduler (``tcp://host:8786``) for the time of a job.

    Raises
    ------
    InputError
        If Dask is not installed, nobody answers, or there are no workers.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise InputError("--scheduler needs Dask: install it with pip install distributed.") from None
    try:
        client = distributed.Client(scheduler, timeout=PATIENCE_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at '{scheduler}' ({error}): start one with dask scheduler."
        ) from None
    with client:
        if not client.nthreads():
            raise InputError(f"The scheduler at '{scheduler}' has no workers: start some with dask worker {scheduler}.")
        yield Cluster(client, str(Path(run).resolve()), device, turns)


def predict_block(work: Assignment, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Predict one block on a worker; the network and the image stay open for the next."""
    network = _network(work)
    with evaluating(network.network):
        for _, values in network.predict(_image(work), [Box(*box)]):
            if isinstance(values, InputError):
                raise values
            return values
    raise AssertionError("a block has an answer")


@lru_cache(maxsize=1)
def _network(work: Assignment) -> BlockwiseNetwork:
    predictor = load_predictor(Path(work.run), choose_device(work.device), work.turns)
    if weights_digest(predictor.network) != work.weights:
        raise InputError(f"The workers find another run at '{work.run}': give a folder that all machines share.")
    return BlockwiseNetwork(predictor.network, predictor.device, predictor.divisor, predictor.reach, work.scale)


@lru_cache(maxsize=4)
def _image(work: Assignment) -> Image:
    image = open_image(work.image, mpp=work.mpp)
    if image.fingerprint() != work.pixels:
        raise InputError(f"The workers find another image at '{work.image}': give a file that all machines share.")
    return image
