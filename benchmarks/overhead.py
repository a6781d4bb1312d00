"""Measure what a method adds to the bare forward and backward of its networks at the same batch.

A step of every method, with the small preset, on cells of a data set. In the same process and by turns, what its
networks were asked in that step is asked of them again, alone: the same functions at the same shapes, with a gradient
where there was one. What the step takes beyond that is the method's own: drawing and augmenting crops, losses, memory,
the teacher's average, the optimizer. On a CPU time is that of the processor, and the least of a few steps counts, so
that other work on the machine, which can only lengthen them, counts little. Methods that were measured before keep
their row (`results/overhead.json`), and what is written below the command in `results/overhead.md` stays.

    python benchmarks/overhead.py DATA/monuseg --methods cdcl supervised
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_semiseg.engine.recipe import Recipe, prepare, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.methods._base import FittedMethod
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.methods.scale_pretext import ScalePretext
from napari_semiseg.nn.flaw_detector import FlawDetector
from napari_semiseg.nn.network import Network

RESULTS = Path(__file__).parent / "results" / "overhead.md"
ASKED = ("features", "logits_on_grid", "upsampled")
"""What a network is asked for: `forward` and `classify` are made of these."""
COMMAND = "    python benchmarks/overhead.py DATA/monuseg --methods cdcl supervised …\n"
PARTS = ("crops", "average and memory", "optimizer")


@dataclass
class Call:
    """A question to a network: a function of it, with the shape of its input and whether gradients flowed."""

    ask: Callable[[Tensor], Tensor]
    shape: torch.Size
    traced: bool
    input_gradient: bool
    used: bool = False


@dataclass
class Spent:
    """Seconds of each part of the steps, by the step."""

    steps: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PARTS})


class Clock:
    """Seconds of the processor on a CPU; on a device those on the wall, waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self) -> float:
        """Return what time it is."""
        if self.device.type == "cpu":
            return time.process_time()
        torch.accelerator.synchronize()
        return time.perf_counter()

    @contextmanager
    def added_to(self, seconds: list[float]) -> Iterator[None]:
        """Note how long the body takes."""
        begun = self()
        yield
        seconds.append(self() - begun)


def networks_of(method: nn.Module) -> list[nn.Module]:
    """Return what counts as the networks of a method: what segments, GCT's detector, and what tells magnifications.

    Of a network that asks another one within (DualRel's prototypes) the inner one counts; the rest is the method's.
    """
    kinds = Network | FlawDetector
    found = [module for module in method.modules() if isinstance(module, kinds)]
    inner = [one for one in found if not any(isinstance(part, kinds) for part in one.modules() if part is not one)]
    return [*inner, method.encoder] if isinstance(method, ScalePretext) else inner


@contextmanager
def recorded(networks: list[nn.Module]) -> Iterator[list[Call]]:
    """Write down every question that networks are asked."""
    calls: list[Call] = []
    for network in networks:
        for name in ASKED if isinstance(network, Network) else ("forward",):
            setattr(network, name, _noting(getattr(network, name), calls))
    yield calls
    for network in networks:
        for name in (*ASKED, "forward"):
            network.__dict__.pop(name, None)


def _noting(ask: Callable[[Tensor], Tensor], calls: list[Call]) -> Callable[[Tensor], Tensor]:
    def noting(given: Tensor, *more: Any) -> Tensor:
        whole = ask(given, *more)
        answer = _last(whole)
        # By themselves: the graph that led to them is gone when they are asked again.
        alone = [
            part.detach().requires_grad_(part.requires_grad) if isinstance(part, Tensor) else part for part in more
        ]
        call = Call(lambda image: _last(ask(image, *alone)), given.shape, answer.requires_grad, given.requires_grad)
        calls.append(call)
        if answer.requires_grad:
            answer.register_hook(lambda _: setattr(call, "used", True))
        return whole

    return noting


def _last(answer: Tensor | Sequence[Tensor]) -> Tensor:
    """Return what a network answers, which of an encoder are its deepest features."""
    return answer if isinstance(answer, Tensor) else answer[-1]


def replay(calls: list[Call], device: torch.device, clock: Clock) -> float:
    """Ask networks the same again and send a gradient back where one came; return the seconds."""
    spent: list[float] = []
    for call in calls:
        given = torch.rand(call.shape, device=device)
        if given.dim() == 4:
            given = given.contiguous(memory_format=torch.channels_last)
        given.requires_grad_(call.input_gradient)
        with torch.set_grad_enabled(call.traced), clock.added_to(spent):
            answer = call.ask(given)
        if call.used:
            gradient = torch.full_like(answer, 1e-6)
            with clock.added_to(spent):
                answer.backward(gradient)
        del answer
    return sum(spent)


@contextmanager
def watched(recipe: Recipe, clock: Clock, spent: Spent) -> Iterator[None]:
    """Note how long the parts of a step take that are no losses."""
    sampler, method = recipe.sampler, recipe.method
    for owner, name, part in ((sampler, "batch", "crops"), (method, "after_step", "average and memory")):
        setattr(owner, name, _timed(getattr(owner, name), clock, spent.parts[part]))
    made = [(optimizer, optimizer.step) for optimizer in recipe.optimizers]
    for optimizer, step in made:
        optimizer.step = _timed(step, clock, spent.parts["optimizer"])  # type: ignore[method-assign]
    yield
    for owner, name in ((sampler, "batch"), (method, "after_step")):
        del owner.__dict__[name]
    for optimizer, step in made:
        optimizer.step = step  # type: ignore[method-assign]


def _timed(work: Callable[..., Any], clock: Clock, seconds: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        with clock.added_to(seconds):
            return work(*args, **options)

    return timed


def measure(request: TrainRequest, rounds: int, learn: int) -> tuple[Spent, Recipe]:
    """Make a few steps from the middle of a run, each followed by its bare networks."""
    recipe = prepare(request)
    clock, spent = Clock(recipe.device), Spent()
    for step in range(learn):  # images are decoded, kernels loaded, pseudo-labels are no longer all of one class
        take_step(recipe, step)
    middle = recipe.choices.steps // 2
    for step in range(middle - 2, middle):  # memories filled
        take_step(recipe, step)
    with recorded(networks_of(recipe.method)) as calls:
        take_step(recipe, middle)
    replay(calls, recipe.device, clock)
    for step in range(middle + 1, middle + 1 + rounds):
        with watched(recipe, clock, spent), clock.added_to(spent.steps):
            take_step(recipe, step)
        running = {name: buffer.clone() for name, buffer in recipe.method.named_buffers()}
        spent.bare.append(replay(calls, recipe.device, clock))
        for name, buffer in recipe.method.named_buffers():  # what the network saw in between is no part of the run
            buffer.copy_(running[name])
        for parameter in recipe.method.parameters():
            parameter.grad = None
    return spent, recipe


def row(name: str, spent: Spent, recipe: Recipe, rounds: int) -> dict[str, Any]:
    """Return the figures of a method: milliseconds, and shares of the bare networks."""
    step, bare = min(spent.steps), min(spent.bare)
    parts = {part: min(_by_step(seconds, len(spent.steps))) for part, seconds in spent.parts.items()}
    return {
        "method": name,
        "network": recipe.choices.network,
        "step_ms": 1e3 * step,
        "bare_ms": 1e3 * bare,
        "rounds": rounds,
        "overhead": step / bare - 1,
        "median": statistics.median(spent.steps) / statistics.median(spent.bare) - 1,
        **{part: seconds / bare for part, seconds in parts.items()},
        "terms": (step - bare - sum(parts.values())) / bare,
    }


def _by_step(seconds: list[float], steps: int) -> list[float]:
    """Return the sum of each step: a method may have several optimizers."""
    each = len(seconds) // steps
    return [sum(seconds[at : at + each]) for at in range(0, each * steps, each)] if each else [0.0]


def table(rows: list[dict[str, Any]], words: str, remarks: str) -> str:
    """Return the page."""
    head = ["method", "network", "step, ms", "bare, ms", "steps", "**overhead**", "by medians", "crops", "terms"]
    head += ["average and memory", "optimizer"]
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] * 2 + ["--:"] * (len(head) - 2)) + "|"]
    for one in rows:
        shares = [f"{one[name]:.1%}" for name in ("crops", "terms", "average and memory", "optimizer")]
        cells = [f"`{one['method']}`", f"`{one['network']}`", f"{one['step_ms']:.0f}", f"{one['bare_ms']:.0f}"]
        cells += [str(one["rounds"]), f"**{one['overhead']:.1%}**", f"{one['median']:.1%}", *shares]
        lines.append("| " + " | ".join(cells) + " |")
    return f"""# What a method adds to its networks

Overhead: what a step takes beyond the bare forward and backward of the method's networks at the same batch, as a share
of the latter, with the preset for two cores. {words} The least of the *steps* that were measured counts; *by medians*
shows how much other work on the machine was in the way. Terms are what is left, and may come out below zero.

*crops*: drawing, reading and augmenting them. *terms*: losses, projections, auxiliary heads, moving the batch, checks
for what is not finite. Networks are those that segment, teachers too, the detector of GCT, and what tells
magnifications in `scale_pretext`; auxiliary classifiers, projectors and the prototypes of `dualrel` count as terms.

{chr(10).join(lines)}

{COMMAND}{remarks}"""


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    descending = [name for name, kind in METHODS.items() if not issubclass(kind, FittedMethod)]
    parser.add_argument("--methods", nargs="+", default=descending, choices=descending)
    parser.add_argument("--rounds", type=int, default=7, help="Steps that are measured.")
    parser.add_argument("--learn", type=int, default=40, help="Steps made before.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="standard")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in args.methods:
        with tempfile.TemporaryDirectory() as folder:
            request = TrainRequest(
                dataset=args.dataset,
                out=folder,
                method=name,
                labeled="15",
                steps=400,
                device=args.device,
                preset=args.preset,
            )
            spent, recipe = measure(request, args.rounds, args.learn)
        found = row(name, spent, recipe, args.rounds)
        print(json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}), flush=True)
        keep(found, _circumstances(args, recipe.device))


def keep(found: dict[str, Any], words: str) -> None:
    """Add a row to those that were measured before, and write the page."""
    file = RESULTS.with_suffix(".json")
    known = {one["method"]: one for one in json.loads(file.read_text())} if file.exists() else {}
    known[found["method"]] = found
    rows = [known[name] for name in METHODS if name in known]
    file.write_text(json.dumps(rows, indent=1) + "\n")
    remarks = RESULTS.read_text().partition(COMMAND)[2] if RESULTS.exists() else ""
    RESULTS.write_text(table(rows, words, remarks))


def _circumstances(args: argparse.Namespace, device: torch.device) -> str:
    kind = "Processor time" if device.type == "cpu" else "Time"
    threads = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
    where = f"{platform.machine()}, {threads}" if device.type == "cpu" else str(device)
    return f"{kind}, {where}, torch {torch.__version__}; by turns, after {args.learn + 3} steps."


if __name__ == "__main__":
    main()
