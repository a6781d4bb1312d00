"""Blocks of a slide predicted by the workers of a Dask cluster; one process, this one, writes the result."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_semiseg.blocks import Box
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.infer import BlockwiseNetwork, at_image, evaluating, weights_digest
from napari_semiseg.engine.predictor import load_predictor
from napari_semiseg.errors import InputError, ReadError
from napari_semiseg.io.images import Image, open_image
from napari_semiseg.io.locate import locate
from napari_semiseg.nn.network import PerImage
from napari_semiseg.nn.turned import Looks, TurnAveraged

BLOCKS_PER_THREAD = 2
"""Blocks that each thread of the cluster is given ahead."""
PATIENCE_S = 20
ANSWER_S = 10
"""Seconds after which the workers are counted while a block is waited for; what is done must travel here in less."""
WITHOUT_WORKERS_S = 60
"""Seconds that a prediction waits for workers when all are gone: some cluster managers start others."""
TRIES = 5
"""Workers that a block may take with it before it is given up."""
LOCAL = re.compile(r"local(?::(\d{1,3}))?")
"""What is given in place of an address to have workers started on this machine."""


@dataclass(frozen=True)
class Assignment:
    """What a worker has to know to predict blocks of an image; run and image lie where they lie for us.

    `weights` and `pixels` are hashes: what a worker has open is used again only if it is still the same. `unread` are
    the parts that a network's look at the whole image went without here.
    """

    run: str
    weights: str
    image: str
    pixels: str
    mpp: float | None
    scale: float
    device: str
    turns: Looks = 1
    unread: tuple[Box, ...] = ()


class Cluster:
    """The workers behind a scheduler. Made by `connected`.

    Parameters
    ----------
    client : distributed.Client
    run, device : str
        Run folder, as the workers see it, and what ``--device`` says.
    turns : {1, 4, 8, "auto"}
        What ``--turns`` says.
    """

    def __init__(self, client: Any, run: str, device: str, turns: Looks) -> None:
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
            look(network, image),
        )
        ahead: deque[tuple[Box, Any]] = deque()
        for block in blocks:
            ahead.append((block, self._submit(work, block)))
            while len(ahead) >= BLOCKS_PER_THREAD * max(1, sum(self._client.nthreads().values())):
                yield self._answer(work, *ahead.popleft())
        while ahead:
            yield self._answer(work, *ahead.popleft())

    def _submit(self, work: Assignment, block: Box) -> Any:
        return self._client.submit(predict_block, work, tuple(block), pure=False)

    def _answer(self, work: Assignment, block: Box, future: Any) -> tuple[Box, NDArray[np.uint8] | InputError]:
        """Wait for a block; one whose worker dies is given to another by the scheduler, and after that by us."""
        distributed: Any = import_module("distributed")
        for _ in range(TRIES):
            try:
                return block, self._awaited(future)
            except NoWorkersError:
                raise
            except InputError as error:
                return block, error
            except (distributed.KilledWorker, distributed.CancelledError):
                future = self._submit(work, block)
        raise InputError(
            f"The block {tuple(block)} took {TRIES} workers with it: look into their logs (too little memory, as a "
            "rule), and give the same command again to go on."
        )

    def _awaited(self, future: Any) -> NDArray[np.uint8]:
        distributed: Any = import_module("distributed")
        alone_since: float | None = None
        while True:
            try:
                values: NDArray[np.uint8] = future.result(timeout=ANSWER_S)
                return values
            except (TimeoutError, distributed.TimeoutError, UnboundLocalError):
                # The last is how Dask itself fails where its timeout meets an answer on its way (distributed #8514).
                if future.cancelled():
                    raise distributed.CancelledError from None
                if self._client.nthreads():
                    alone_since = None
                    continue
                alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since > WITHOUT_WORKERS_S:
                raise NoWorkersError(
                    "All workers of the cluster are gone: start some, and give the same command again to go on."
                )


class NoWorkersError(InputError):
    """Nobody is left who could predict; what was predicted so far is kept."""


@contextmanager
def connected(scheduler: str, run: str, device: str, turns: Looks = 1) -> Iterator[Cluster]:
    """Connect to a scheduler (``tcp://host:8786``) for the time of a job, or start one here.

    Parameters
    ----------
    scheduler : str
        An address; or ``local`` for one worker on each graphics card of this machine, one at all where it has none, and
        ``local:4`` for as many.
    run, device, turns
        See `Cluster`.

    Raises
    ------
    InputError
        If Dask is not installed, nobody answers, or there are no workers.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise InputError("--scheduler needs Dask: install it with pip install distributed.") from None
    if asked := LOCAL.fullmatch(scheduler):
        with local_workers(int(asked.group(1) or 0)) as address, connected(address, run, device, turns) as cluster:
            yield cluster
        return
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


@contextmanager
def local_workers(count: int = 0) -> Iterator[str]:
    """Start workers on this machine, each in a process of its own that sees one graphics card; yield the address.

    Parameters
    ----------
    count : int
        0 for as many as there are graphics cards, at least one. More share the cards, or the cores, in turn.
    """
    distributed: Any = import_module("distributed")
    cards = torch.cuda.device_count()
    count = count or max(1, cards)
    share = str(max(1, len(os.sched_getaffinity(0)) // count if hasattr(os, "sched_getaffinity") else 1))
    workers = {
        number: {
            "cls": distributed.Nanny,
            "options": {
                "nthreads": 1,
                "memory_limit": 0,  # Dask would count the pages of libraries as well, and end a worker for them
                "silence_logs": logging.ERROR,
                "env": {"OMP_NUM_THREADS": share} | ({"CUDA_VISIBLE_DEVICES": str(number % cards)} if cards else {}),
            },
        }
        for number in range(count)
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard": False, "host": "127.0.0.1", "port": 0}}
    with distributed.SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.ERROR) as cluster:
        yield str(cluster.scheduler_address)


def predict_block(work: Assignment, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Predict one block on a worker; the network and the image stay open for the next."""
    network, image = _network(work), _image(work)
    if look(network, image) != work.unread:
        _image.cache_clear()  # perhaps it can at the next block
        raise ReadError(f"A worker cannot read the same parts of '{work.image}' as the others: give the command again.")
    with evaluating(network.network):
        for _, values in network.predict(image, [Box(*box)]):
            if isinstance(values, InputError):
                raise values
            return values
    raise AssertionError("a block has an answer")


def look(network: BlockwiseNetwork, image: Image) -> tuple[Box, ...]:
    """Let a network look at an image as a whole, where it does; return the parts that it could not see."""
    at_image(network.network, image, network.scale)
    alone = network.network.network if isinstance(network.network, TurnAveraged) else network.network
    looks = isinstance(alone, PerImage)  # for others it is looked at for tissue alone, and by no worker
    return image.unread if looks else ()


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
