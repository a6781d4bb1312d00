"""The one training loop, as a generator of events."""

from __future__ import annotations

import math
import platform
import shutil
import statistics
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import field_validator
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.config import Config
from napari_semiseg.data.learned import Learned
from napari_semiseg.data.sources import regions_digest
from napari_semiseg.engine.changed_images import agree_on_images, fingerprints
from napari_semiseg.engine.checkpoint import RunFolder, Snapshot
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.judge import Fit, dice_of_regions, threshold_dice
from napari_semiseg.engine.kept_step import full_tiles
from napari_semiseg.engine.learning_data import read_project
from napari_semiseg.engine.memory import out_of_memory
from napari_semiseg.engine.pacing import FIRST_LOOK, LOOKS
from napari_semiseg.engine.preview import FIRST_STEP, Previewer
from napari_semiseg.engine.recipe import Choices, Recipe, prepare, rebuild, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.team import Team
from napari_semiseg.engine.teamwork import TOO_LITTLE_MEMORY, help_out, lead, tell_state, tell_step
from napari_semiseg.engine.train_answers import Answers
from napari_semiseg.engine.train_guard import Guard
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    GROWN,
    REGION,
    Cancel,
    Command,
    Event,
    Finished,
    Fitted,
    Focus,
    Inspect,
    LabelsChanged,
    LabelsRead,
    Pause,
    Paused,
    ProposeNuclei,
    Resume,
    Resumed,
    Saved,
    Skipped,
    Started,
    StepDone,
    Stop,
    SuggestTiles,
    Validated,
    Warned,
)
from napari_semiseg.io.claims import Claim
from napari_semiseg.nn.two_opinions import TwoOpinions

REPORT_SECONDS = 0.2
SAVE_SECONDS = 20.0
TYPICAL_STEPS = 20
"""Steps after which the time of one is known well enough to say how long the run will take."""
BAD_STEPS = 3
"""Steps in a row that were not finite before the last good checkpoint is taken up again."""
ROLLBACKS = 5
"""How often that may happen before the run gives up."""
PATIENCE = 1.25
"""A run that counts in minutes ends by then at the latest, as a multiple of them, even if steps have become slower."""


def train_from_args(args: dict[str, Any], control: Control) -> Iterator[Event]:
    """Start a training from untrusted options: what `serve` calls."""
    return train(TrainRequest.checked(args, "the request"), control)


def train(request: TrainRequest, control: Control | None = None) -> Iterator[Event]:
    """Train, and yield what happens, in order.

    The run folder `request.out` then holds ``run.json``, ``events.jsonl``, checkpoints, previews, and the predictor
    to use. With `request.resume` a broken-off run goes on at its newest checkpoint that verifies, with its own
    options.

    Parameters
    ----------
    request : TrainRequest
    control : Control, optional
        The mailbox through which the run is paused, stopped, canceled, or told of new labels.

    Yields
    ------
    Event
        `Started`, then `StepDone`, `Skipped`, `Validated`, `Fitted`, `PreviewWritten`, `Saved`, `Warned` …, and
        `Finished` as the last.

    Raises
    ------
    InputError
        If the request cannot be met.
    """
    team = Team.joined()
    if team is not None and not team.leads:
        help_out(team)
        return
    yield from _claimed(request, control or Control(), team)
    if team is not None:  # after an error the others may wait for this process's part of a step: torchrun ends them
        team.leave()


def _claimed(request: TrainRequest, control: Control, team: Team | None) -> Iterator[Event]:
    if not request.out:
        raise InputError("A training needs a run folder to write to: give --out.")
    run = RunFolder(Path(request.out))
    run.begin()
    claim = Claim(run.path)  # two trainings in one folder would take each other's checkpoints away
    try:
        yield from _train(request, run, control, team)
    finally:
        run.withdraw()
        claim.release()


def _train(request: TrainRequest, run: RunFolder, control: Control, team: Team | None) -> Iterator[Event]:
    if team is not None:
        request = request.model_copy(update={"device": team.device(request.device)})
    if request.resume:
        config = run.read_config()
        choices = Choices.checked(config.get("choices", {}), str(run.path / "run.json"))
        asked = TrainRequest.checked(config.get("request", ""), str(run.path / "run.json"))
        asked = asked.model_copy(update={"out": request.out, "device": request.device, "resume": True})
        recipe = rebuild(choices, asked, Learned.of(config, str(run.path / "run.json")))
        recipe.turns = _Turns.checked({"turns": config.get("turns", ())}, str(run.path / "run.json")).turns
        recipe.notes += yield from agree_on_images(run, config, recipe.data.images, agreed=request.changed_images)
        if config.get("learned", []) != (learned := recipe.data.learned.facts()):
            config["learned"] = learned  # before a step is made by it
            run.write_config(config)
    else:
        if (run.path / "run.json").exists():
            raise InputError(f"{run.path} already holds a run: add --resume to go on with it, or choose another --out.")
        asked = request
        recipe = prepare(request)
        config = _config(asked, recipe)
        run.write_config(config)
    if team is not None:
        lead(team, recipe, asked)
    loop = _Loop(recipe, run, asked, control)
    try:
        with run.log() as log:
            for event in loop.events(config):
                log.write(event)
                yield event
    finally:
        if recipe.compiling is not None:
            recipe.compiling.close()


class _Turns(Config):
    """Where the number of steps was corrected, in the form that ``run.json`` keeps."""

    turns: tuple[tuple[int, int], ...] = ()

    @field_validator("turns")
    @classmethod
    def _go_on(cls, turns: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        at = [0, *(step for step, _ in turns)]
        if any(after <= before for before, after in pairwise(at)) or any(steps <= step for step, steps in turns):
            raise ValueError("corrections of the number of steps come one after the other, each before the end")
        return turns


@dataclass
class _Pace:
    """Steps a second over the last while, by a clock that never jumps; pauses do not count."""

    times: list[float] = field(default_factory=list)

    def tick(self) -> None:
        self.times = [*self.times[-40:], time.monotonic()]

    def rest(self) -> None:
        self.times = []

    @property
    def rate(self) -> float:
        return (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 2 else math.nan


class _Loop:
    """The loop's state while a run goes on."""

    def __init__(self, recipe: Recipe, run: RunFolder, request: TrainRequest, control: Control) -> None:
        self.recipe, self.run, self.request, self.control = recipe, run, request, control
        self.previewer = Previewer(run.preview, recipe)
        self.answers = Answers(recipe, run, self.previewer, request.project)
        self.guard = Guard()
        self.pace = _Pace()
        self.ending: Stop | Cancel | None = None
        self.validate_every = max(1, recipe.choices.steps // recipe.choices.validations)
        self.threshold_dice = math.nan
        self.fit = Fit(recipe)
        self.deadline = self.ends_at = math.inf
        self.config: dict[str, Any] = {}
        self._looked = 0, 0.0
        """Step and time of the last look at the clock."""
        self._reported = self._saved = time.monotonic()

    def events(self, config: Mapping[str, Any]) -> Iterator[Event]:
        """Yield what happens; `config` is what ``run.json`` says of the run."""
        recipe, self.config = self.recipe, dict(config)
        yield Started("train", str(self.run.path), recipe.way.steps, recipe.facts())
        for note in (*recipe.notes, *recipe.data.notes):
            yield Warned(note)
        start = yield from self._restored(config)
        tell_state(recipe)
        yield from self._meet_labels()
        if start < recipe.way.steps:
            self._write_down()
        self._start_clock(start)
        done = start
        while done < recipe.way.steps:
            yield from self._asked(done)
            if self.ending or time.monotonic() > self.deadline:
                break
            yield from self._step(done)
            yield from self._after(done)
            self._keep_time(done)
            done += 1
            self._try_compiling(done)
        yield from self._end(done)

    def _start_clock(self, start: int) -> None:
        now, choices = time.monotonic(), self.recipe.choices
        self._looked = start, now
        if minutes := choices.minutes or self.request.minutes:
            self.deadline = now + PATIENCE * 60 * minutes
        if choices.minutes and not self.recipe.method.counts_steps:  # what is left of the plan has what is left of them
            self.ends_at = now + 60 * choices.minutes * (1 - self.recipe.way.place(start) / choices.steps)

    def _keep_time(self, step: int) -> None:
        """Correct the number of steps so that the run ends in time.

        That is written down before a step is made by it, so that a run that breaks off, or is repeated from its
        ``run.json``, goes the same way.
        """
        recipe, done, now = self.recipe, step + 1, time.monotonic()
        look = recipe.way.passes(step, LOOKS)
        if not 0 < look < LOOKS or math.isinf(self.ends_at):
            return
        (since, then), self._looked = self._looked, (done, now)
        known = bool(recipe.turns) and done <= recipe.turns[-1][0]
        if look < FIRST_LOOK or known:
            return
        step_s = max(now - then, 1e-3) / (done - since)
        recipe.turns = recipe.way.corrected(done, self.ends_at - now, step_s).turns
        self.config["turns"] = recipe.turns
        self.run.write_config(self.config)

    def _try_compiling(self, done: int) -> None:
        recipe = self.recipe
        if recipe.compiling is not None:
            recipe.compiling.look()
        elif len(self.pace.times) == TYPICAL_STEPS and not math.isnan(self.pace.rate):
            recipe.try_compiling((recipe.way.steps - done) / self.pace.rate)

    def _restored(self, before: Mapping[str, Any]) -> Generator[Event, None, int]:
        if not self.request.resume:
            return 0
        snapshot, passed_over = self.run.restore(self.recipe.method, self.recipe.optimizers)
        for sentence in passed_over:
            yield Warned(sentence)
        if snapshot is not None:
            self.guard = Guard.of(snapshot.state)
            if self.guard.best_step >= 0 and not self.run.go_back_to_model(self.guard.best_step):
                self.guard.forget_scores()  # what is read is of a step that was lost, until one is kept anew
            predictor = self.recipe.method.predictor()
            if isinstance(predictor, TwoOpinions):
                predictor.weigh_at_homes(self.guard.homes)
        if self.guard.sampler is not None:
            self.recipe.draw_by(self.guard.sampler)
        if (self.guard.labels or before.get("labels")) not in (None, self.recipe.data.digest()):
            yield Warned("The labels have changed since this run broke off: it goes on with them as they are now.")
        return 0 if snapshot is None else snapshot.step

    def _meet_labels(self) -> Iterator[Event]:
        """Find out what the labels can judge; scores from other judges no longer count."""
        data, guard = self.recipe.data, self.guard
        judges = regions_digest(data.validation)
        if judges != guard.judges:
            guard.forget_scores()
        if data.validation and (judges != guard.judges or math.isnan(self.threshold_dice)):
            self.threshold_dice = threshold_dice(self.recipe)
        elif data.labeled and not data.validation and judges != guard.judges:
            yield Warned(
                "There are too few complete tiles to keep some for judging: this run cannot say how good it is."
            )
        guard.labels, guard.judges = data.digest(), judges

    def _asked(self, step: int) -> Iterator[Event]:
        """Answer what was asked since the last step; hold while paused."""
        for command in self.control.take():
            yield from self._answer(command, step)

    def _answer(self, command: Command, step: int) -> Iterator[Event]:
        match command:
            case Stop() | Cancel():
                self.ending = command
            case Focus(image, box):
                self.previewer.focus(image, Box(*box))
            case LabelsChanged():
                yield from self._read_labels()
            case ProposeNuclei(image, box, path):
                yield from self.answers.proposed(image, Box(*box), path, self._grown(step))
            case SuggestTiles(image, side, n):
                yield from self.answers.suggested(image, side, n, self._grown(step))
            case Inspect(show, image, box):
                yield from self.answers.inspected(show, image, Box(*box), step)
            case Pause():
                yield from self._held(step)

    def _grown(self, step: int) -> bool:
        """Whether the network is worth asking: see `GROWN`."""
        if self.guard.best_step >= 0:
            return self.guard.best_dice > self.threshold_dice
        return step >= GROWN and self.recipe.method.ready_to_predict(step)

    def _held(self, step: int) -> Iterator[Event]:
        """Hold until the run is to go on, or to end; the time does not count."""
        begun = time.monotonic()
        yield self._save(step)
        yield Paused(step)
        while not self.ending:
            command = self.control.wait()
            if isinstance(command, Resume):
                yield Resumed(step)
                break
            if not isinstance(command, Pause):
                yield from self._answer(command, step)
        held = time.monotonic() - begun
        self.deadline, self.ends_at = self.deadline + held, self.ends_at + held
        self._looked = self._looked[0], self._looked[1] + held
        self.pace.rest()

    def _read_labels(self) -> Iterator[Event]:
        if not self.request.project or self.recipe.method.labels == "unused":
            return
        before, choices = self.recipe.data, self.recipe.choices
        known = len(choices.classes) - 1
        try:
            data = read_project(self.request.project, choices.mpp, learned=before.learned, known=known)
            self.recipe.learn_from(data)
        except InputError as error:
            yield Warned(f"{error} Until then the run goes on with the labels that it has.")
            return
        self._write_down()
        for note in (note for note in data.notes if note not in before.notes):
            yield Warned(note)
        yield from self._meet_labels()
        nuclei = sum(region.nuclei for region in data.labeled)
        yield LabelsRead(len(data.labeled), nuclei, data.digest(), data.seen or {})

    def _write_down(self) -> None:
        """Keep on the disk what the run learns from, before it makes a step by it: none of it may judge the run.

        The methods paragraph tells of it, too.
        """
        now = {**self.config, **_taught_by(self.recipe)}
        now["facts"] = {**self.config.get("facts", {}), **now["facts"]}
        if now != self.config:
            self.config = now
            self.run.write_config(now)

    def _step(self, step: int) -> Iterator[Event]:
        terms, finite = yield from self._made(step)
        self.pace.tick()
        if not finite:
            yield from self._not_finite(step)
            return
        self.guard.bad = 0
        for warning in self.recipe.method.warnings():
            yield Warned(warning)
        if terms is None:
            self.guard.skipped += 1
            yield Skipped(step, "the batch gave nothing to learn from")
        elif time.monotonic() - self._reported >= REPORT_SECONDS or step == 0:
            self._reported = time.monotonic()
            total, rate = self.recipe.way.steps, self.pace.rate
            eta_s = (total - step - 1) / rate if rate else math.nan
            yield StepDone(step, terms, self._counters(), rate, eta_s, total)

    def _counters(self) -> dict[str, float]:
        """Return what the method counted, and once there are any, the batches that taught nothing."""
        skipped = {"skipped batches": float(self.guard.skipped)} if self.guard.skipped else {}
        return self.recipe.method.counters() | skipped

    def _made(self, step: int) -> Generator[Event, None, tuple[dict[str, float] | None, bool]]:
        """Make a step; where memory runs out, with ever fewer and smaller crops."""
        tell_step(self.recipe, step, self.guard.rate)
        while True:
            try:
                return take_step(self.recipe, step, self.guard.rate)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            if self.recipe.team is not None:  # the others wait for this process's part of the step
                raise InputError(TOO_LITTLE_MEMORY)
            yield Warned(self.recipe.use_less_memory())  # only here: the error held the tensors of the step
            self.guard.sampler = self.recipe.choices.sampler

    def _not_finite(self, step: int) -> Iterator[Event]:
        self.guard.bad += 1
        yield Skipped(step, "the loss or its gradient was not finite")
        # One such batch may spoil the running statistics of a normalization, which no further batch mends.
        if self.guard.bad >= BAD_STEPS or not _is_finite(self.recipe.method):
            yield from self._go_back(step)

    def _go_back(self, step: int) -> Iterator[Event]:
        """Take up the last good checkpoint again, with half the learning rate."""
        if self.guard.rollbacks >= ROLLBACKS:
            raise InputError(
                f"The training does not stay finite, even at {self.guard.rate:.3g} of the learning rate: "
                "use a lower one, for example --set lr=0.0001."
            )
        rate, rollbacks = self.guard.rate / 2, self.guard.rollbacks + 1
        snapshot, _ = self.run.restore(self.recipe.method, self.recipe.optimizers)
        if snapshot is None:  # it went wrong before anything was saved: begin anew
            self._begin_anew()
        tell_state(self.recipe)
        # What was kept stays so: it was finite when it was judged, and lies on the disk.
        self.guard.bad, self.guard.rate, self.guard.rollbacks = 0, rate, rollbacks
        back = "the start" if snapshot is None else f"step {snapshot.step}"
        yield Warned(
            f"The training was no longer finite at step {step}: it goes on from the weights of {back} "
            "with half the learning rate."
        )

    def _begin_anew(self) -> None:
        recipe = self.recipe
        fresh = recipe.choices.build(recipe.device, recipe.method.task.probe)
        recipe.method.load_state_dict(fresh.state_dict())
        for optimizer in recipe.optimizers:
            optimizer.state.clear()

    def _after(self, step: int) -> Iterator[Event]:
        try:
            yield from self._judged_and_shown(step)
        except FloatingPointError:  # finite in training, and not with the running statistics
            yield from self._go_back(step)
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            yield self._save(step + 1)

    def _judged_and_shown(self, step: int) -> Iterator[Event]:
        done = step + 1
        way = self.recipe.way
        last = done == way.steps
        ready = self.recipe.method.ready_to_predict(step)
        first = min(FIRST_STEP, self.recipe.choices.steps // 10)  # the user waits for the first map
        before, now = (int(way.place(at) / self.validate_every) for at in (step, done))
        due = last or (now > before and done >= first)
        if ready and self.recipe.data.validation and due:
            yield self._validated(done)
        if self.previewer.due(step) or (last and ready):
            yield self.previewer.write(step, self.recipe.method.predictor())
            yield self.previewer.counted
            if self.request.project and (fit := self.fit.scores(done)):
                yield Fitted(done, fit)

    def _validated(self, done: int) -> Validated:
        each = dice_of_regions(self.recipe)
        dice = statistics.fmean(each.values())
        judging = (region.nuclei for region in self.recipe.data.validation if region.name in each)
        kept = self.guard.keeps(done, dice, full_tiles(judging))
        if kept:
            self._save_model(done)
        scores = {"dice": dice, "threshold_dice": self.threshold_dice}
        return Validated(done, scores | {f"{REGION}{name}": score for name, score in each.items()}, kept)

    def _save(self, done: int) -> Saved:
        self.guard.homes = self._homes()
        path = self.run.save(self.recipe.method, self.recipe.optimizers, Snapshot(done, self.guard.state()))
        if not self.recipe.data.validation:
            self._save_model(done)
        self._saved = time.monotonic()
        return Saved(done, str(path))

    def _save_model(self, done: int) -> None:
        if self.recipe.method.ready_to_predict(done - 1):
            card = {"choices": self.recipe.choices.model_dump(mode="json"), "threshold": 0.5, "homes": self._homes()}
            self.run.save_model(self.recipe.method.predictor(), done, card)

    def _homes(self) -> dict[str, float]:
        predictor = self.recipe.method.predictor()
        known = predictor.homes if isinstance(predictor, TwoOpinions) else {}
        return {image: float(share) for image, share in known.items()}

    def _end(self, done: int) -> Iterator[Event]:
        if not isinstance(self.ending, Cancel):
            yield from self._kept(done)
        if isinstance(self.ending, Stop) and any(isinstance(command, Cancel) for command in self.control.take()):
            self.ending = Cancel()  # whoever asked to stop thought again while the last of it was kept
        if isinstance(self.ending, Cancel):
            self.run.discard()
            yield Finished("train", str(self.run.path), stopped=True, canceled=True)
            return
        facts: dict[str, Any] = {
            "steps": done,
            "best_step": self.guard.best_step if self.recipe.data.validation else done,
        }
        if self.recipe.data.validation:
            facts |= {"dice": self.guard.best_dice, "threshold_dice": self.threshold_dice}
        yield Finished("train", str(self.run.path), stopped=self.ending is not None, facts=facts)

    def _kept(self, done: int) -> Iterator[Event]:
        """Save where the run stands, and judge it where nothing was judged yet."""
        if not _is_finite(self.recipe.method):
            yield from self._go_back(done)
        yield self._save(done)
        if self.recipe.data.validation and self.guard.best_step < 0 and self.recipe.method.ready_to_predict(done - 1):
            yield self._validated(done)


def _is_finite(method: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in method.state_dict().values() if tensor.is_floating_point())


def _config(request: TrainRequest, recipe: Recipe) -> dict[str, Any]:
    return {
        "request": request.model_dump(mode="json"),
        "choices": recipe.choices.model_dump(mode="json"),
        "images": [image.source for image in recipe.data.images],
        "fingerprints": fingerprints(recipe.data.images),
        "labels": recipe.data.digest(),
        **_taught_by(recipe),
        "facts": recipe.facts(),
        "versions": {
            name: _version(name) for name in ("napari-semiseg", "torch", "torchvision", "numpy", "scikit-image")
        },
        "python": platform.python_version(),
        "free_bytes": shutil.disk_usage(Path(request.out)).free,
    }


def _taught_by(recipe: Recipe) -> dict[str, Any]:
    """Return what ``run.json`` says of labels, those of now: with new ones it says so anew."""
    data, told = recipe.data, ("images", "labeled", "validation", "nuclei", "seen")
    return {
        "learned": data.learned.facts(),
        "facts": {name: value for name, value in recipe.facts().items() if name in told},
        "judging": full_tiles(region.nuclei for region in data.validation),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
