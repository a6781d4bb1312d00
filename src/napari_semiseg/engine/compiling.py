"""Networks that are compiled while they learn, where that pays for itself within the run.

Compiling takes from seconds to minutes, and nobody knows before how much faster a step becomes. So a child process
tries it beside a training that goes on as it is. Only where the child came to its end within `LIMIT_S`, and what is
left of the run will save more than compiling costs, is the network that learns compiled, from the child's cache.
Whatever goes wrong with it leaves things as they were; a log says so, and nobody is asked.

On a CPU nothing is compiled: it would take the time of the training itself, and the same seed would no longer give the
same curve.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from napari_semiseg.engine.compile_trial import Timing, Trial
from napari_semiseg.errors import InputError
from napari_semiseg.nn.network import Network, computing_features

KINDS = ("cuda",)
"""Kinds of device for which it is tried."""
LIMIT_S = 120.0
"""How long a trial may take."""
LEAST_S = 5 * LIMIT_S
"""What has to be left of a run for a trial to be worth its while."""

_log = logging.getLogger(__name__)


class Compiling:
    """The trial of one run, and what came of it.

    Parameters
    ----------
    trial : Trial
    remaining_s : float
        What is left of the run, as it is now.
    """

    def __init__(self, trial: Trial, remaining_s: float) -> None:
        self.trial = trial
        self._ends_at = time.monotonic() + remaining_s
        self._deadline = time.monotonic() + LIMIT_S
        self._child: subprocess.Popen[str] | None = _begun(trial)
        self._compiled: dict[Network, Callable[[Tensor], Tensor]] | None = None

    def look(self) -> None:
        """See whether the trial has ended; to be called between steps."""
        if self._child is None:
            return
        if self._child.poll() is None:
            if time.monotonic() > self._deadline:
                self.close()
                _log.debug("Compiling took more than %.0f s: networks stay as they are.", LIMIT_S)
            return
        answer, complaint = self._child.communicate()
        self._child = None
        try:
            timing = Timing.checked(json.loads(answer), "the trial")
        except (ValueError, InputError):
            _log.debug("Compiling failed, networks stay as they are: %s", complaint[-2_000:])
            return
        saved_s = (1 - timing.compiled_s / timing.eager_s) * (self._ends_at - time.monotonic())
        if saved_s > timing.compile_s:
            self._compiled = {}
        _log.debug("Compiling took %.1f s and would save %.1f s.", timing.compile_s, saved_s)

    @contextmanager
    def used(self, method: nn.Module) -> Iterator[None]:
        """Let the networks of a method compute compiled features, where that has turned out to pay."""
        if self._compiled is None:
            yield
            return
        with computing_features(method, self._features):
            yield

    def close(self) -> None:
        """End the trial, where it goes on."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _features(self, network: Network, image: Tensor) -> Tensor:
        """Return features, compiled where it is what was tried: any other batch would be compiled for itself."""
        plain = partial(type(network).features, network)
        learning = network.training and torch.is_grad_enabled()
        if self._compiled is None or not learning or tuple(image.shape) != self.trial.shape:
            return plain(image)
        if network not in self._compiled:
            self._compiled[network] = torch.compile(plain, dynamic=False)
        try:
            return self._compiled[network](image)
        except Exception as error:  # whatever a compiler raises: the step is made without it
            self._compiled = None
            _log.debug("The compiled network failed, networks stay as they are: %s", error)
            return plain(image)


def worth_trying(device: torch.device, remaining_s: float) -> bool:
    """Whether so much is left of a run, on such a device, that compiling may pay."""
    return device.type in KINDS and remaining_s >= LEAST_S


def _begun(trial: Trial) -> subprocess.Popen[str] | None:
    command = [sys.executable, "-m", "napari_semiseg.engine.compile_trial", trial.model_dump_json()]
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        _log.debug("The trial of a compiled network could not begin: %s", error)
        return None
