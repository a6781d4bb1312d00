"""Methods beside each other on a labeled data set: the same cells, the same images, the same definitions.

The folder of a benchmark holds ``rows/`` with one file for each finished row, ``runs/`` with their run folders,
``results.json``, ``table.md`` and plots. A finished row is never computed again, a broken-off one goes on where its run
stopped, and ``results.json`` and ``table.md`` are written anew after each row, so that an interrupted benchmark can be
read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_serializer, field_validator, model_validator

from napari_semiseg import atomic
from napari_semiseg.config import Config
from napari_semiseg.data.published import converted
from napari_semiseg.data.sampler import SamplerConfig
from napari_semiseg.data.splits import count_of
from napari_semiseg.engine.benchmark_budget import Budget, budgets_of, numbers_of
from napari_semiseg.engine.benchmark_plots import write_plots
from napari_semiseg.engine.benchmark_report import write_report
from napari_semiseg.engine.benchmark_score import Scored, score_run
from napari_semiseg.engine.benchmark_seeds import count_or_seeds, seeds_of
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.devices import choose_device
from napari_semiseg.engine.learning_data import read_split
from napari_semiseg.engine.optim import OptimConfig
from napari_semiseg.engine.presets import variants_named
from napari_semiseg.engine.provenance import commit, device_words, versions
from napari_semiseg.engine.requests import Preset, TrainRequest
from napari_semiseg.engine.run import last_word, over
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import Cancel, Event, Finished, Progressed, Started, Stop, Warned, Written
from napari_semiseg.io.claims import Claim
from napari_semiseg.io.event_log import read_timed
from napari_semiseg.methods._base import FittedMethod, Method
from napari_semiseg.methods._registry import find_method

ALL = "1"
"""Stands for all labels."""
NONE = "0"
"""Stands for no label."""


class BenchmarkRequest(Config):
    """A benchmark: which methods, with how many labels, how often, for how long, and what is scored."""

    dataset: str = Field(
        min_length=1, description="A folder with images/, labels/ and splits.json, or a set in its published layout."
    )
    out: str = Field("", description="The folder to make, or to go on in.")
    methods: tuple[str, ...] = Field(
        ("hematoxylin_threshold", "random_forest", "supervised"),
        min_length=1,
        description="Names of methods; auto is the default of a training.",
    )
    variants: tuple[str, ...] = Field(
        (),
        description="Rows of papers' tables to train beside the methods, as method=name; the name of a table is all of "
        "its rows.",
    )
    fractions: tuple[str, ...] = Field(
        ("1/32",),
        min_length=1,
        description="Labels to learn from: fractions, counts, or files that list them; 1 is all.",
    )
    by: Literal["cells", "images"] = Field("cells", description="What fractions and counts are of.")
    seeds: int | tuple[int, ...] = Field(
        3, description="Runs of each method: so many, with the seeds 0, 1, 2 …, or the seeds themselves, as 3,4."
    )
    minutes: tuple[float, ...] = Field((), description="Minutes of each training; several, as 2,5,10, make a curve.")
    steps: tuple[int, ...] = Field((), description="Optimizer steps of each, instead of minutes; several too.")
    preset: Preset = Field("standard", description="Network and options; its time, where none is given.")
    network: str = Field("auto", description="Name of a network for the methods that have none of their own.")
    splits: str | None = Field(
        None, description="A splits.json; without it splits_grouped.json where the data set has one, else its own."
    )
    split: str = Field("train", description="The part to learn from; several as train+val.")
    part: str = Field("test", description="The part that is scored.")
    test: str | None = Field(None, description="Another data set to score, instead of a part of the same.")
    classes: bool = Field(False, description="Learn and score the classes of nuclei in the data set's classes/.")
    subimage: int = Field(250, ge=32, le=4096, description="Side of a cell, in pixels.")
    validation: float = Field(
        0.0, ge=0, le=0.5, description="Share of the labeled cells kept for choosing the step; 0 takes the last step."
    )
    device: str = Field("auto", description="auto, all, or devices with commas between: a row runs on one of them.")
    set: dict[str, Any] = Field(
        default_factory=dict, description="Options of all methods that have them, or of one as method.option."
    )

    @field_validator("minutes", "steps", mode="before")
    @classmethod
    def _one_or_several(cls, given: object, info: ValidationInfo) -> tuple[float, ...]:
        return numbers_of(given, "minutes" if info.field_name == "minutes" else "steps")

    @field_validator("seeds", mode="before")
    @classmethod
    def _so_many_or_these(cls, given: object) -> int | tuple[int, ...]:
        return count_or_seeds(given)

    @field_serializer("minutes", "steps")
    def _as_it_is_kept(self, several: tuple[float, ...]) -> Any:
        """Write a single one as the number that it was before there could be several: `results.json` holds it."""
        return list(several) if len(several) > 1 else several[0] if several else None

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """What each training is given, the shortest first; one that says nothing is the preset's."""
        return budgets_of({"minutes": self.minutes, "steps": self.steps})

    @model_validator(mode="after")
    def _refuse_what_makes_no_table(self) -> Self:
        if self.minutes and self.steps:
            raise InputError("A benchmark counts in minutes or in steps: give --minutes or --steps, not both.")
        if self.test is None and self.part in self.split.split("+"):
            raise InputError(f"What was learned from cannot be scored: give --part other than {self.split}, or --test.")
        return self


def benchmark_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Start from untrusted options."""
    return benchmark(BenchmarkRequest.checked(args, "the request"), control)


def benchmark(request: BenchmarkRequest, control: Control | None = None) -> Iterator[Event]:
    """Compute the rows that are missing, and yield what happens, in order.

    Several processes may be given the same request, on one machine: each takes rows that nobody else computes. With
    more than one device that is what this function does itself.

    Parameters
    ----------
    request : BenchmarkRequest
    control : Control, optional
        A stop ends the row that is going on, which can be gone on with, and begins no other.

    Yields
    ------
    Event
        Those of the trainings, `Progressed` for rows and scored images, `Warned` for rows that cannot be had,
        `Written` for results, table and plots; `Finished` as the last.

    Raises
    ------
    InputError
        If the request cannot be met. What can be seen beforehand is said before anything is computed.
    """
    control = control or Control()
    work = Benchmark(request)
    out = str(work.out)
    yield Started("benchmark", out, 0, {"rows": len(work.rows), "done": len(work.finished())})
    devices = _devices(request.device)
    stopped = yield from (_shared(work, devices, control) if len(devices) > 1 else _computed(work, control))
    yield from work.reported(plots=True)
    missing = len(work.rows) - len(work.finished())
    if missing and not stopped:
        yield Warned(f"{missing} of {len(work.rows)} rows are missing: give the same command again to go on.")
    yield Finished("benchmark", out, stopped=stopped, facts={"rows": len(work.finished()), "missing": missing})


@dataclass(frozen=True)
class Row:
    """One training and its scores.

    Attributes
    ----------
    method, labeled : str
    seed : int
    budget : Budget
        Of a method that is fitted at once it says nothing.
    key : str
        A hash of all that the training depends on.
    scored : str
        What is scored, in a form that names of files allow.
    variant : str
        Name of the method's variant; "" for what the preset says.
    """

    method: str
    labeled: str
    seed: int
    budget: Budget
    key: str
    scored: str
    variant: str = ""

    @property
    def run(self) -> str:
        """Name of its run folder: another part can be scored without another training."""
        amount = Path(self.labeled).stem if _is_list(self.labeled) else self.labeled.replace("/", "_")
        variant = re.sub(r"[^\w.]+", "-", f".{self.variant}") if self.variant else ""
        return f"{self.method}{variant}-{amount}-{self.seed}-{self.key}"

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.run}-{self.scored}"


class Benchmark:
    """A request, its folder, and its rows.

    Raises
    ------
    InputError
        If the request cannot be met.
    """

    def __init__(self, request: BenchmarkRequest) -> None:
        if not request.out:
            raise InputError("A benchmark needs a folder to write to: give --out.")
        self.request = request
        self.out = Path(request.out)
        for name in ("rows", "runs", "draws"):
            (self.out / name).mkdir(parents=True, exist_ok=True)
        atomic.require_writable(self.out)
        self.folder = converted(Path(request.dataset), self.out / "data")
        self.tested = self.folder if request.test is None else converted(Path(request.test), self.out / "data")
        self.splits = _splits(self.folder, request.splits)
        # A splits.json that was named is of the data set that is learned from.
        self.tested_splits = self.splits if request.test is None else _splits(self.tested, None)
        self.stems = read_split(self.folder, str(self.splits), request.split)
        self.tested_stems = read_split(self.tested, str(self.tested_splits), request.part)
        self.lines = [*((find_method(name).name, "") for name in request.methods), *variants_asked(request)]
        _check_options(request, {name for name, _ in self.lines})
        if request.classes and not (self.folder / "classes").is_dir():
            raise InputError(f"{self.folder} has no classes/: leave --classes out.")
        self.rows = list(dict.fromkeys(self._planned()))

    def _planned(self) -> Iterator[Row]:
        request = self.request
        for labeled, budget, line in itertools.product(request.fractions, request.budgets, self.lines):
            method, variant = line
            kind = find_method(method)
            given = Budget() if issubclass(kind, FittedMethod) else budget  # which makes no difference to these
            for seed in seeds_of(request.seeds if kind.random else 1):
                yield self._row(method, variant, NONE if kind.labels == "unused" else labeled, seed, given)

    def _row(self, method: str, variant: str, labeled: str, seed: int, budget: Budget) -> Row:
        kind, asked = find_method(method), self.request
        facts = {
            "dataset": self.folder.name,
            "stems": self.stems,
            "labels": Path(labeled).read_text(encoding="utf-8") if _is_list(labeled) else labeled,
            "by": asked.by,
            "subimage": asked.subimage,
            "classes": asked.classes,
            "validation": asked.validation,
            "options": options_for(kind, asked.set),
            "seed": seed,
        }
        if not issubclass(kind, FittedMethod):
            facts |= {"preset": asked.preset, "network": asked.network, **asdict(budget)}
        if variant:  # which says all that the preset would
            facts |= {"preset": "paper", "variant": variant}
        scored = f"{self.tested.name}-{asked.part}-{_digest(self.tested_stems)[:4]}"
        return Row(method, labeled, seed, budget, _digest(facts)[:8], scored, variant)

    def file_of(self, row: Row) -> Path:
        """Return where a finished row lies."""
        return self.out / "rows" / f"{row.name}.json"

    def reason_of(self, row: Row) -> Path:
        """Return the file that says why a row cannot be had, for whichever process writes the report."""
        return self.out / "rows" / f"{row.name}.txt"

    def run_of(self, row: Row) -> Path:
        """Return the run folder of a row."""
        return self.out / "runs" / row.run

    def finished(self) -> list[dict[str, Any]]:
        """Return the rows that are finished, in the order of the request."""
        return [atomic.read_json(path) for row in self.rows if (path := self.file_of(row)).exists()]

    def failed(self) -> dict[str, str]:
        """Return why rows cannot be had, by their names."""
        reasons = {row: self.reason_of(row) for row in self.rows if not self.file_of(row).exists()}
        return {row.name: path.read_text(encoding="utf-8") for row, path in reasons.items() if path.exists()}

    def training(self, row: Row) -> TrainRequest:
        """Return the training of a row; it goes on where it was broken off."""
        request, run = self.request, self.run_of(row)
        kind = find_method(row.method)
        several = request.classes and kind.classes == "any" and kind.labels != "unused"
        values = {
            "dataset": str(self.folder),
            "splits": str(self.splits),
            "split": request.split,
            "out": str(run),
            "method": row.method,
            "labeled": self._labeled(row),
            "classes": str(self.folder / "classes") if several else None,
            "subimage": request.subimage,
            "validation": request.validation,
            "network": "auto" if kind.network else request.network,
            "preset": "paper" if row.variant else request.preset,
            "variant": row.variant,
            **asdict(row.budget),
            "device": "auto" if request.device == "all" else request.device,
            "seed": row.seed,
            "set": options_for(kind, request.set),
            "resume": (run / "run.json").exists(),
        }
        return TrainRequest.checked(values, "the request")

    def _labeled(self, row: Row) -> str | None:
        """Return what a row may see, as a training takes it; whole images are drawn here and listed in a file."""
        if row.labeled == ALL:
            return None
        if self.request.by == "cells" or row.labeled == NONE or _is_list(row.labeled):
            return row.labeled
        count = count_of(row.labeled, len(self.stems))
        if count is None or count > len(self.stems):
            raise InputError(
                f"There are {len(self.stems)} images to learn from: {row.labeled} of them cannot be drawn."
            )
        order = np.random.default_rng([row.seed, 0x51DE]).permutation(len(self.stems))[:count]
        path = self.out / "draws" / f"{row.labeled.replace('/', '_')}-{row.seed}.txt"
        atomic.write_text(path, "".join(f"{self.stems[place]}\n" for place in order))
        return str(path)

    def compute(self, row: Row, control: Control) -> Generator[Event, None, bool]:
        """Train, score and write down a row. Returns whether somebody asked for an end before it was whole."""
        request = self.training(row)
        device = choose_device(request.device)
        end = yield from last_word(train(request, control))
        if over(end):
            return True
        run = self.run_of(row)
        begun = time.monotonic()
        scored = yield from score_run(
            run,
            self.tested,
            self.tested_stems,
            device=device,
            subimage=self.request.subimage,
            classes=self.request.classes,
            should_stop=lambda: _asked_to_end(control),
        )
        if scored is None:
            return True
        facts = {"seconds_scoring": round(time.monotonic() - begun, 1), "device": device_words(device)}
        atomic.write_json(self.file_of(row), self._written_down(row, run, end, scored) | facts)
        return False

    def _written_down(self, row: Row, run: Path, end: Finished, scored: Scored) -> dict[str, Any]:
        config = RunFolder(run).read_config()
        labeled = [*config["facts"]["labeled"], *config["facts"]["validation"]]
        return {
            "method": row.method,
            "variant": row.variant,
            "labeled": row.labeled,
            "seed": row.seed,
            "key": row.key,
            "learned_from": {"dataset": self.folder.name, "splits": self.splits.name, "part": self.request.split},
            "scored_on": {
                "dataset": self.tested.name,
                "splits": self.tested_splits.name,
                "part": self.request.part,
                "images": len(self.tested_stems),
            },
            "cells": len(labeled),
            "labels_seen": labeled,
            "nuclei": config["facts"]["nuclei"],
            **end.facts,
            "seconds_training": round(_seconds_in(run / "events.jsonl"), 1),
            "scores": scored.values,
            "images": scored.images,
            "network": config["choices"]["network"],
            "options": {name: config["choices"][name] for name in ("options", "optim", "sampler", "weights")},
            "budget": {**asdict(row.budget), "preset": "paper" if row.variant else self.request.preset},
            "versions": versions(),
            "commit": commit(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def reported(self, *, plots: bool = False) -> Iterator[Event]:
        """Write results and table from the rows that are there; with `plots`, these too, and say what was written."""
        rows = self.finished()
        asked = self.request.model_dump(mode="json")
        paths = write_report(self.out, rows, asked, len(self.rows), self.failed(), self.tested.name)
        if plots:
            for path in [*paths, *write_plots(self.out, rows)]:
                yield Written(path.suffix[1:], str(path))


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def variants_asked(request: BenchmarkRequest) -> list[tuple[str, str]]:
    """Return methods and their variants in the order in which they were asked for, tables as all of their rows."""
    found: list[tuple[str, str]] = []
    for asked in request.variants:
        method, equals, name = (part.strip() for part in asked.partition("="))
        if not equals:
            raise InputError(
                f"--variant takes method=name, not '{asked}': write for example --variant \"cdcl=table 2\"."
            )
        kind = find_method(method)
        found += [(kind.name, row) for row in variants_named(kind.name, name)]
    return found


def options_for(kind: type[Method], given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a method: those of all methods that have them, and over them its own."""
    shared = {name: value for name, value in given.items() if "." not in name and name in _options_of(kind)}
    own = {name.partition(".")[2]: value for name, value in given.items() if name.partition(".")[0] == kind.name}
    return shared | own


def _options_of(kind: type[Method]) -> set[str]:
    return {*SamplerConfig.model_fields, *OptimConfig.model_fields, *kind.Config.model_fields}


def _check_options(request: BenchmarkRequest, methods: Iterable[str]) -> None:
    kinds = {name: find_method(name) for name in methods}
    for option in request.set:
        method, dot, name = option.partition(".")
        if dot and method not in kinds:
            raise InputError(f"--set {option} is for '{method}', which is not among the methods.")
        asked = [kinds[method]] if dot else kinds.values()
        if not any((name if dot else option) in _options_of(kind) for kind in asked):
            raise InputError(f"None of these methods has an option '{option}': see napari-semiseg methods.")
    for labeled in request.fractions:
        if not _is_list(labeled) and count_of(labeled, 0) is None:
            raise InputError(
                f"'{labeled}' is neither a fraction, a count nor a file: write --fractions 1/32, for example."
            )


def _is_list(labeled: str) -> bool:
    return Path(labeled).is_file()


def _splits(folder: Path, named: str | None) -> Path:
    if named:
        return Path(named)
    grouped = folder / "splits_grouped.json"
    return grouped if grouped.is_file() else folder / "splits.json"


def _devices(name: str) -> list[str]:
    """Return the devices that rows are shared among."""
    if name != "all":
        return [word.strip() for word in name.split(",") if word.strip()]
    count = torch.cuda.device_count()
    return [f"cuda:{number}" for number in range(count)] or ["auto"]


def _computed(work: Benchmark, control: Control) -> Generator[Event, None, bool]:
    """Compute what is missing in this process; returns whether somebody asked for an end."""
    for number, row in enumerate(work.rows):
        yield Progressed("rows", number, len(work.rows))
        if work.file_of(row).exists():
            continue
        if _asked_to_end(control):
            return True
        try:
            claim = Claim(work.file_of(row))
        except InputError:  # another process computes it
            continue
        try:
            work.reason_of(row).unlink(missing_ok=True)
            if not work.file_of(row).exists() and (yield from work.compute(row, control)):
                return True
        except InputError as error:
            atomic.write_text(work.reason_of(row), str(error))
            yield Warned(f"There is no row {row.name}: {error}")
        finally:
            claim.release()
        yield from work.reported()
    yield Progressed("rows", len(work.rows), len(work.rows))
    return False


def _shared(work: Benchmark, devices: Sequence[str], control: Control) -> Generator[Event, None, bool]:
    """Let one process for each device compute rows; returns whether somebody asked for an end."""
    children = [_child(work.request.model_copy(update={"device": device})) for device in devices]
    stopped, done = False, -1
    try:
        while any(child.poll() is None for child in children):
            if not stopped and _asked_to_end(control):
                stopped = True
                for child in children:
                    child.terminate()  # which the child answers as a wish to stop
            if len(work.finished()) != done:
                done = len(work.finished())
                yield Progressed("rows", done, len(work.rows))
                yield from work.reported()
            time.sleep(0.5)
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
    for device, child in zip(devices, children, strict=True):
        if child.returncode not in (0, 3):
            yield Warned(f"The process for {device} ended with status {child.returncode}: its rows are missing.")
    return stopped


def _child(request: BenchmarkRequest) -> subprocess.Popen[bytes]:
    values = json.dumps(request.model_dump(mode="json"))
    return subprocess.Popen(
        [sys.executable, "-m", "napari_semiseg.engine.benchmark_child", values], stdin=subprocess.DEVNULL
    )


def _asked_to_end(control: Control) -> bool:
    """Whether a stop or a cancel was asked for; both keep what is finished."""
    ends = [command for command in control.take() if isinstance(command, Stop | Cancel)]
    if ends:
        control.send(Stop())  # for whoever looks next
    return bool(ends)


def _seconds_in(log: Path) -> float:
    """Return how long a run took, over all the times it was gone on with."""
    spans: list[list[float]] = []
    for said, event in read_timed(log):
        if isinstance(event, Started):
            spans.append([said, said])
        elif spans:
            spans[-1][1] = said
    return sum(last - first for first, last in spans)
