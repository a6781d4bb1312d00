"""The cross-patch contrast as rectangles, against the same loss as a masked matrix.

    python benchmarks/cdcl_loss.py --out benchmarks/results/cdcl_loss.md

Times forward and backward of all forms in one process, in turns, so that whatever else runs on the machine slows them
alike; measures the peak of memory of each in a process of its own.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from napari_semiseg.losses.patch_contrast import (
    BACKGROUND,
    FOREGROUND,
    MIXED,
    PatchCells,
    cross_patch_contrast,
)

TEMPERATURE, WIDTH, PATCH, DISAGREEMENT = 0.1, 128, 25, 0.1
MIXES = {"15 % / 55 %": (0.15, 0.55), "50 % / 50 %": (0.5, 0.5)}
FULL, SMALL = 8 * 1600, 2 * 1600
"""Anchors: 8 or 2 images of 40 x 40 cells. Keys are four times as many: student and teacher, two batches."""

Keys = list[PatchCells]
"""Student, teacher, and what is remembered."""


def cells(count: int, mix: tuple[float, float], *, grad: bool = False) -> PatchCells:
    """Random cells in patches of 25: the given parts foreground and background, one label in ten against it."""
    patches = count // PATCH
    kinds = torch.full((patches,), MIXED, dtype=torch.int8)
    foreground, background = (round(part * patches) for part in mix)
    kinds[:foreground] = FOREGROUND
    kinds[foreground : foreground + background] = BACKGROUND
    kinds = kinds[torch.randperm(patches)].repeat_interleave(PATCH)
    likely = torch.where(kinds == FOREGROUND, 1 - DISAGREEMENT, torch.where(kinds == BACKGROUND, DISAGREEMENT, 0.5))
    labels = (torch.rand(count) < likely).long()
    return PatchCells(
        features=F.normalize(torch.randn(count, WIDTH), dim=1).requires_grad_(grad),
        labels=labels,
        category=kinds,
        foreground=labels.view(-1, PATCH).sum(1).repeat_interleave(PATCH),
        size=PATCH,
        position=torch.arange(count),
    )


def problem(count: int, mix: tuple[float, float]) -> tuple[PatchCells, Tensor, Keys]:
    torch.manual_seed(0)
    student, teacher = cells(count, mix, grad=True), cells(count, mix)
    history = cells(2 * count, mix).as_history()
    return student, teacher.features, [student.as_history(), teacher, history]


def mask_of(anchors: PatchCells, keys: Keys) -> Tensor:
    """Pairs of opposite category and label, in one comparison: 5 - code is the opposite code of 1, 2, 3, 4."""
    q, k = (
        torch.cat([torch.where(one.category == MIXED, -side, 2 * one.category - 1 + one.labels) for one in parts])
        for side, parts in ((9, [anchors]), (0, keys))
    )
    return (5 - q.to(torch.int8))[:, None] == k.to(torch.int8)[None]


def masked_rows(features: Tensor, positives: Tensor, anchors: PatchCells, keys: Keys) -> Tensor:
    logits = features @ torch.cat([part.features for part in keys]).T / TEMPERATURE
    log_sums = logits.masked_fill(~mask_of(anchors, keys), -1e4).logsumexp(1)
    return F.softplus(log_sums - (features * positives).sum(1) / TEMPERATURE)


def dense(anchors: PatchCells, positives: Tensor, keys: Keys) -> Tensor:
    """Every valid anchor against every key, one matrix and one mask."""
    rows = (anchors.category != MIXED).nonzero().squeeze(1)
    anchors = anchors.select(rows)
    return masked_rows(anchors.features, positives[rows], anchors, keys).mean()


def dense_in_chunks(anchors: PatchCells, positives: Tensor, keys: Keys) -> Tensor:
    """The same, 1024 anchors at a time, each chunk computed again in the backward pass."""
    total = 0.0
    valid = (anchors.category != MIXED).nonzero().squeeze(1)
    for rows in valid.split(1024):
        part = anchors.select(rows)
        total = total + checkpoint(masked_rows, part.features, positives[rows], part, keys, use_reentrant=False).sum()
    return total / len(valid)


def rectangles(anchors: PatchCells, positives: Tensor, keys: Keys) -> Tensor:
    return cross_patch_contrast(anchors, positives, keys, temperature=TEMPERATURE).loss


def rectangles_for_keys(anchors: PatchCells, positives: Tensor, keys: Keys) -> Tensor:
    wanting = [replace(part, features=part.features.detach().requires_grad_()) for part in keys]
    return rectangles(anchors, positives, wanting)


FORMS = {
    "masked matrix": dense,
    "masked, in chunks": dense_in_chunks,
    "rectangles": rectangles,
    "rectangles, gradient for keys too": rectangles_for_keys,
}


def run(form: Callable[..., Tensor], anchors: PatchCells, positives: Tensor, keys: Keys) -> tuple[float, float]:
    """Seconds of one forward and backward pass, and the loss."""
    anchors.features.grad = None
    start = time.perf_counter()
    loss = form(anchors, positives, keys)
    loss.backward()
    return time.perf_counter() - start, loss.item()


def time_forms(count: int, mix: str, names: list[str], repeats: int) -> list[str]:
    """A row of the table per form: median and least seconds, and how many times slower than the rectangles."""
    inputs = problem(count, MIXES[mix])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        losses = []
        for name in names:
            took, loss = run(FORMS[name], *inputs)
            losses.append(loss)
            if repeat:  # the first round warms up
                seconds[name].append(took)
        assert max(losses) - min(losses) <= 1e-5 * max(losses), losses
    rows = []
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds["rectangles"], strict=True)]
        rows.append(
            f"| {count:,} x {4 * count:,} | {mix} | {name} | {statistics.median(seconds[name]):.2f} "
            f"| {min(seconds[name]):.2f} | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) "
            f"| {peak_in_child(count, mix, name)} |"
        )
        print(rows[-1], flush=True)
    return rows


def peak_mb() -> float:
    """The most memory this process has held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage on Linux also counts what the parent held before it started this process
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def peak_in_child(count: int, mix: str, name: str) -> str:
    command = [sys.executable, __file__, "--peak", str(count), mix, name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or f"failed ({done.returncode})"


def say_peak(count: int, mix: str, name: str) -> None:
    inputs = problem(count, MIXES[mix])
    before = peak_mb()
    run(FORMS[name], *inputs)
    print(f"{peak_mb():,.0f} ({peak_mb() - before:,.0f} above the inputs)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the table there")
    parser.add_argument("--repeats", type=int, default=6, help="rounds; at full size half as many")
    parser.add_argument("--threads", type=int, default=1, help="more only on a machine that does nothing else")
    parser.add_argument("--peak", nargs=3, metavar=("ANCHORS", "MIX", "FORM"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        say_peak(int(args.peak[0]), *args.peak[1:])
        return
    rows = []
    for mix in MIXES:
        rows += time_forms(SMALL, mix, list(FORMS), args.repeats)
    for mix in MIXES:
        rows += time_forms(FULL, mix, list(FORMS)[1:], args.repeats // 2)
    if args.out:
        args.out.write_text(REPORT.format(rows="\n".join(rows), where=where(), repeats=args.repeats), encoding="utf-8")


def where() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{model}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, float32"


REPORT = """# Cross-patch contrast: rectangles against a masked matrix

    python benchmarks/cdcl_loss.py --out benchmarks/results/cdcl_loss.md

{where}.
Forward and backward, D = 128, temperature 0.1, keys detached unless said, {repeats} rounds (half as many at full size)
in which the forms take turns; other processes shared the machine, so read the ratios rather than the seconds. The parts
are those of foreground and of background patches, and one label in ten disagrees with its patch. All forms gave the
same loss to 1e-5.

- *masked matrix*: every anchor of a foreground or background patch against every key, masked with -1e4, log-sum-exp.
- *masked, in chunks*: the same, 1024 anchors at a time under non-reentrant checkpointing.
- *rectangles*: `napari_semiseg.losses.patch_contrast.cross_patch_contrast`.

*Times slower* is the time of a form divided by that of the rectangles in the same round: median, and in brackets the
least and the most. Peak memory is that of a process of its own that runs the form once, inputs and libraries included.

| anchors x keys | patches | form | median s | least s | times slower | peak memory, MB |
|---|---|---|---|---|---|---|
{rows}
"""

if __name__ == "__main__":
    main()
