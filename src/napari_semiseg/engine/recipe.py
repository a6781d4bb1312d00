"""From a request to everything that a training run needs, decided once and written down."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field
from torch.optim import Optimizer

from napari_semiseg.config import Config
from napari_semiseg.data.ahead import Ahead
from napari_semiseg.data.batch import Batch, Views
from napari_semiseg.data.learned import Learned
from napari_semiseg.data.sampler import Sampler, SamplerConfig
from napari_semiseg.data.sources import TrainingData
from napari_semiseg.engine.compile_trial import Trial
from napari_semiseg.engine.compiling import Compiling, worth_trying
from napari_semiseg.engine.devices import bfloat16_is_faster, choose_device
from napari_semiseg.engine.guides import StainGuides
from napari_semiseg.engine.judge import VALIDATIONS, pace, seconds_per_region
from napari_semiseg.engine.learning_data import read_project, read_training_data
from napari_semiseg.engine.memory import out_of_memory
from napari_semiseg.engine.optim import OptimConfig, descend, forget
from napari_semiseg.engine.pacing import Pacing
from napari_semiseg.engine.presets import Plan, find_variant, plan
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.team import Team
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import NO_NETWORK, FittedMethod, Method, Task
from napari_semiseg.methods._registry import find_method
from napari_semiseg.nn._registry import build_network, network_spec
from napari_semiseg.nn.network import Network
from napari_semiseg.nn.stain import Stain
from napari_semiseg.postprocess.threshold import find_stain

PROBE_CROPS = 8
"""Unlabeled crops that a method is given to look at before and while it trains."""


STAIN_IMAGES = 8
"""Images, at most, that are looked at to find out how the tissue is stained."""
FOREGROUND_ONLY = "tells nuclei from background only"
"""What is said of a method of two classes where there are more."""
TRIED_STEPS = 1_000
"""Steps of the run that is pretended while the time of a step is measured."""
SMALLEST_CROP = 64
"""Side of a crop, in pixels, below which lack of memory is no longer answered by smaller crops."""


class Choices(Config):
    """What was decided, in the form that ``run.json`` keeps: enough to build method and network again without the data.

    `steps` is a round number until the time of a step was measured, where a run counts in `minutes`.
    """

    method: str
    network: str
    stain: Stain
    weights: str
    classes: tuple[str, ...] = Field(min_length=2, max_length=255)  # 255 is for pixels that are ignored
    mpp: float | None = Field(gt=0)
    sampler: SamplerConfig
    optim: OptimConfig
    options: dict[str, Any]
    steps: int = Field(ge=1, le=10**9)
    seed: int = Field(ge=0, lt=2**31)
    validations: int = Field(VALIDATIONS, ge=1)
    judges: int | None = Field(None, ge=0)
    precision: Literal["float32", "bfloat16"] = Field("float32", description="What networks compute in; losses do not.")
    minutes: float | None = Field(None, gt=0)

    def new_network(self) -> Network:
        """Return the network with fresh weights, which depend on torch's global generator."""
        return build_network(self.network, len(self.classes), stain=self.stain, weights=self.weights)

    def build(self, device: torch.device, probe: torch.Tensor | None = None) -> Method:
        """Return the method on a device, as it is before the first step: the same weights for the same seed."""
        kind = find_method(self.method)
        torch.manual_seed(self.seed)
        task = Task(len(self.classes), self.steps, self.sampler.crop, self.seed, probe)
        method = kind(self.new_network, task, kind.Config.checked(self.options, "--set"))
        return method.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass
class Recipe:
    """Everything that the loop works with."""

    choices: Choices
    data: TrainingData
    sampler: Sampler
    method: Method
    optimizers: list[Optimizer]
    device: torch.device
    guides: StainGuides
    notes: tuple[str, ...] = ()
    ahead: Ahead = field(default_factory=Ahead)
    team: Team | None = None
    """The processes that learn together, where there are several."""
    compiling: Compiling | None = None
    """The trial of compiled networks, once there is one."""
    turns: tuple[tuple[int, int], ...] = ()
    """Where the number of steps was corrected: see `Pacing`."""

    @property
    def way(self) -> Pacing:
        """How the plan, which is what `choices` know of, is spread over the steps."""
        return Pacing(self.choices.steps, self.turns)

    def batch(self, step: int) -> Batch:
        """Return the batch of a step on the device.

        A device learns while the processor draws the next batch. Where the processor learns itself, it draws in turn:
        a second thread would take what its budget leaves to others.
        """
        if self.device.type == "cpu":
            return self.sampler.batch(step).to(self.device)
        return self.ahead.batch(self.sampler, step, more=step + 1 < self.way.steps).to(self.device)

    def around_networks(self) -> AbstractContextManager[None]:
        """Change how networks compute their features, for as long as a step takes."""
        if self.team is not None:
            return self.team.sharing(self.method)
        return nullcontext() if self.compiling is None else self.compiling.used(self.method)

    def try_compiling(self, remaining_s: float) -> None:
        """Begin to try whether compiled networks learn faster, where what is left of the run makes that worth while."""
        if self.team is None and worth_trying(self.device, remaining_s):
            crops = self.choices.sampler
            scaled = network_spec(self.choices.network).takes_scale
            batch = max(crops.batch_labeled, crops.batch_unlabeled)
            trial = Trial(
                network=self.choices.network,
                classes=len(self.choices.classes),
                stain=self.choices.stain,
                shape=(batch, 4 if scaled else 3, crops.crop, crops.crop),
                device=str(self.device),
                half=self.choices.precision == "bfloat16",
            )
            self.compiling = Compiling(trial, remaining_s)

    def learn_from(self, fresh: TrainingData) -> None:
        """Go on with other data: labels have changed, images may have come.

        Images that are open stay open, with what of them was decoded. Classes go by their order: one that has another
        name now is the same class.

        Parameters
        ----------
        fresh : TrainingData
            Its labels know no other classes than the network has.
        """
        self.choices = _named_as_now(self.choices, fresh)
        if not fresh.labeled:
            _forget_labels(fresh)
        known = {(image.source, image.mpp): image for image in self.data.images}
        fresh.images = [known.get((image.source, image.mpp), image) for image in fresh.images]
        self.data = fresh
        self.guides.look_at(fresh)
        self.sampler = _sampler(self.choices, fresh, self.method.views, self.guides)

    def draw_by(self, config: SamplerConfig) -> None:
        """Draw crops in another way from now on."""
        self.choices = self.choices.model_copy(update={"sampler": config})
        self.sampler = _sampler(self.choices, self.data, self.method.views, self.guides)

    def use_less_memory(self) -> str:
        """Halve the batch, or where it is one crop, the crop, and let go of what a broken-off step has left behind.

        Returns
        -------
        str
            What was changed, in one sentence.

        Raises
        ------
        InputError
            If there is nothing left to halve.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            whole = max((len(state) for state in optimizer.state.values()), default=0)
            for parameter in [p for p, state in optimizer.state.items() if len(state) < whole]:
                del optimizer.state[parameter]  # its making was broken off
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        before = self.choices.sampler
        divisor = math.lcm(4, int(getattr(self.method.predictor(), "divisor", 1)))
        smaller = _smaller(before, divisor, max(SMALLEST_CROP, self.method.least_crop))
        if smaller is None:
            raise InputError(_no_memory(self.device, f"for one crop of {before.crop} pixels"))
        self.draw_by(smaller)
        if smaller.crop < before.crop:
            return f"There was not enough memory: crops are now {smaller.crop} pixels wide instead of {before.crop}."
        now = max(smaller.batch_labeled, smaller.batch_unlabeled)
        was = max(before.batch_labeled, before.batch_unlabeled)
        return f"There was not enough memory: a step now takes {now} crops at once instead of {was}."

    def facts(self) -> dict[str, Any]:
        """Say in words what was chosen, and of a project which tiles were read."""
        seen = {} if self.data.seen is None else {"seen": self.data.seen}
        return {
            "method": self.choices.method,
            "network": self.choices.network,
            "device": str(self.device),
            "precision": self.choices.precision,
            "images": len(self.data.images),
            "labeled": [region.name for region in self.data.labeled],
            "validation": [region.name for region in self.data.validation],
            "nuclei": sum(region.nuclei for region in self.data.labeled),
            "steps": self.choices.steps,
            **seen,
        }


def prepare(request: TrainRequest) -> Recipe:
    """Decide everything that a request leaves open, and build it.

    Raises
    ------
    InputError
        If the request cannot be met: no image, no label for a method that needs them, an unknown method, variant,
        network or option, a device that is not there.
    """
    kind = find_method(request.method)
    variant = find_variant(kind.name, request.variant) if request.variant else None
    data = read_training_data(request)
    device = choose_device(request.device)
    several = len(data.classes) - 1 if kind.classes == "two" and len(data.classes) > 2 else 0
    if kind.labels == "unused" or not data.labeled:
        _forget_labels(data)
        if several:
            data.notes.append(
                f"The method '{kind.name}' {FOREGROUND_ONLY}: its result is without the {several} classes."
            )
    if kind.labels == "unused":
        data.seen, data.learned = None, Learned()
    if kind.labels == "needed" and not data.labeled:
        raise InputError(
            f"The method '{kind.name}' learns from labels, and there are none: "
            "label a tile, give --labels, or use --method stain_guided."
        )
    if several and data.labeled:
        raise InputError(
            f"The method '{kind.name}' {FOREGROUND_ONLY}, and there are {several} classes: use --method supervised, or "
            "leave the classes out."
        )
    chosen = variant or plan(request.preset, kind.name, device.type)
    _require_own_network(kind, request)
    network = chosen.network if request.network == "auto" else request.network
    sampler, optim, options = _sort_options({**chosen.options, **request.set}, kind)
    choices = Choices(
        method=kind.name,
        network=network,
        stain=_stain(data),
        weights=_weights(network, request, device),
        classes=data.classes,
        mpp=data.mpp,
        sampler=sampler,
        optim=optim,
        options=options,
        steps=TRIED_STEPS,
        seed=request.seed,
        precision="bfloat16" if bfloat16_is_faster(device) else "float32",
    )
    once = issubclass(kind, FittedMethod)
    steps = 1 if once else request.steps or _epoch_steps(kind, chosen, data, sampler, request)
    notes: tuple[str, ...] = ()
    if steps is None:
        minutes = request.minutes or chosen.minutes
        assert minutes is not None, "a plan counts in minutes or in epochs"
        choices, seconds, notes = _tried(tried := _built(choices, data, device))
        planned = pace(minutes * 60, seconds, seconds_per_region(tried), len(data.validation))
        if planned.judges < len(data.validation):
            few = f"{planned.judges} of the {len(data.validation)}"
            notes = (*notes, f"{few} labeled cells that were set aside judge this run: all would take too long.")
        judging = {"validations": planned.validations, "judges": planned.judges or None, "minutes": minutes}
        choices = choices.model_copy(update=judging)
        steps = planned.steps
        del tried  # its place in memory is wanted
    recipe = _built(choices.model_copy(update={"steps": steps}), data, device)
    recipe.notes += notes
    return recipe


def rebuild(choices: Choices, request: TrainRequest, learned: Learned) -> Recipe:
    """Build a run again from what ``run.json`` keeps.

    Raises
    ------
    InputError
        If something of it is missing, or the labels of a data set have other classes than the network.
    """
    if request.project:
        data = read_project(request.project, choices.mpp, learned=learned, known=len(choices.classes) - 1)
    else:
        data = read_training_data(request.model_copy(update={"mpp": choices.mpp}))
    if find_method(choices.method).labels == "unused":
        _forget_labels(data)
        data.learned = Learned()
    elif not data.labeled:
        _forget_labels(data)
    if not request.project:
        _require_classes(choices, data)
    choices = _named_as_now(choices, data)
    device = choose_device(request.device)
    if device.type != "cuda":  # the run began elsewhere
        choices = choices.model_copy(update={"precision": "float32"})
    return _built(choices, data, device)


def seconds_per_step(recipe: Recipe) -> float:
    """Measure the mean time of two steps, after one to warm up, on a method that is thrown away afterwards.

    They are steps from the middle of the run, past every warm-up.
    """
    times = []
    first = recipe.choices.steps // 2 + 1
    for step in range(first, first + 3):
        recipe.batch(step)  # what is read and looked at once for every image is no part of a step
        begun = time.perf_counter()
        take_step(recipe, step)
        times.append(time.perf_counter() - begun)
    return sum(times[1:]) / 2


def take_step(recipe: Recipe, step: int, rate: float = 1.0) -> tuple[dict[str, float] | None, bool]:
    """Make one step.

    Parameters
    ----------
    rate : float
        What the learning rate is multiplied by, beside its schedule.

    Returns
    -------
    dict or None
        The weighted terms by name; None where the batch taught nothing.
    bool
        Whether loss and gradient were finite, so that the step was made.
    """
    choices, method, team = recipe.choices, recipe.method, recipe.team
    if isinstance(method, FittedMethod):
        method.fit(batch.to(recipe.device) for batch in recipe.sampler.regions(method.margin))
        return {}, True
    batch = recipe.batch(step)
    place = int(recipe.way.place(step))  # rates, ramps and warm-ups are functions of the plan
    # Whatever the method draws depends on the seed and the step alone: nothing has to be saved for an exact resume.
    torch.manual_seed(choices.seed * 1_000_003 + step + 1)
    # Networks in half the bits where that is faster; the losses bring what they are given to float32 by themselves.
    half = torch.autocast(recipe.device.type, torch.bfloat16, enabled=choices.precision == "bfloat16")
    with half, recipe.around_networks():
        losses = method.losses(batch, place)
    finite = True
    if losses is not None:
        total = torch.stack(list(losses.values())).sum()
        factor = rate * choices.optim.factor(place, choices.steps)
        finite = descend(recipe.optimizers, total, factor, choices.optim.clip, team.average if team else None)
    if finite:
        method.after_step(place)
        forget(recipe.optimizers, method.begun_anew())
    terms = None if losses is None else {name: float(term.detach()) for name, term in losses.items()}
    return terms, finite


def _tried(recipe: Recipe) -> tuple[Choices, float, tuple[str, ...]]:
    """Return choices that fit into memory, the seconds of a step with them, and what had to be changed."""
    notes: tuple[str, ...] = ()
    while True:
        try:
            return recipe.choices, seconds_per_step(recipe), notes
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        notes = (*notes, recipe.use_less_memory())  # only here: the error held the tensors of the step


def _smaller(config: SamplerConfig, divisor: int, least: int) -> SamplerConfig | None:
    """Return what takes about half the memory; None where there is nothing to halve."""
    labeled, unlabeled = config.batch_labeled, config.batch_unlabeled
    if max(labeled, unlabeled) > 1:
        halved = {"batch_labeled": max(1, labeled // 2), "batch_unlabeled": max(1, unlabeled // 2)}
        return config.model_copy(update=halved)
    crop = config.crop // 2 // divisor * divisor
    return config.model_copy(update={"crop": crop}) if crop >= least else None


def _no_memory(device: torch.device, for_what: str) -> str:
    if device.type == "cpu":
        return f"There is not enough memory {for_what}: close other programs, or take --network small_unet."
    return f"The graphics card has not enough memory {for_what}: train on the CPU with --device cpu."


def _built(choices: Choices, data: TrainingData, device: torch.device) -> Recipe:
    kind = find_method(choices.method)
    guides = StainGuides()
    guides.look_at(data)
    sampler = _sampler(choices, data, kind.views, guides)
    try:
        method = choices.build(device, sampler.probe(PROBE_CROPS, choices.sampler.crop).to(device))
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(_no_memory(device, f"for the network '{choices.network}'")) from None
    if choices.sampler.crop < method.least_crop:
        raise InputError(
            f"The method '{choices.method}' takes crops of at least {method.least_crop} pixels: "
            f"--set crop={-(-method.least_crop // 4) * 4}, for example."
        )
    predictor = method.predictor()
    divisor = int(getattr(predictor, "divisor", 1))
    if choices.sampler.crop % divisor:
        raise InputError(
            f"The network '{choices.network}' takes crops whose side is a multiple of {divisor}: "
            f"--set crop={divisor * 5}, for example."
        )
    optimizers = [choices.optim.build(groups) for groups in method.parameter_groups()]
    notes = tuple(getattr(predictor, "notes", ()))
    return Recipe(choices, data, sampler, method.train(), optimizers, device, guides, notes)


def _sampler(choices: Choices, data: TrainingData, views: Views, guides: StainGuides) -> Sampler:
    scaled = choices.network != NO_NETWORK and network_spec(choices.network).takes_scale
    return Sampler(data, views, choices.sampler, choices.seed, guides, scaled=scaled)


def _forget_labels(data: TrainingData) -> None:
    data.labeled, data.validation, data.classes = [], [], ("background", "nucleus")
    data.seen = None if data.seen is None else {}


def _named_as_now(choices: Choices, data: TrainingData) -> Choices:
    """Call the classes what they are called now: results are matched with the project's classes by name.

    A network that knows one class keeps its name where there are several: it may have been told that all are alike.
    """
    known = len(choices.classes)
    if not data.labeled or len(data.classes) < known or (known == 2 and len(data.classes) > 2):
        return choices
    return choices.model_copy(update={"classes": data.classes[:known]})


def _require_classes(choices: Choices, data: TrainingData) -> None:
    if len(data.classes) != len(choices.classes):
        raise InputError(
            f"The classes were {', '.join(choices.classes)} when this run began, and are {', '.join(data.classes)} "
            "now: start another training to learn them."
        )


def _require_own_network(kind: type[Method], request: TrainRequest) -> None:
    """Refuse a network, or weights of one, that a method with a network of its own would pass over."""
    if not kind.network:
        return
    own = "trains no network" if kind.network == NO_NETWORK else "begins with a fresh network of its own"
    for option, asked, fitting in (
        ("network", request.network, ("auto", kind.network)),
        ("weights", request.weights, ("auto", "none")),
    ):
        if asked not in fitting:
            raise InputError(
                f"The method '{kind.name}' {own} and has no use for "
                f"--{option} {asked}: leave that out, or name another --method, which needs labels."
            )


def _sort_options(options: Mapping[str, Any], kind: type[Method]) -> tuple[SamplerConfig, OptimConfig, dict[str, Any]]:
    """Give every option to whom it belongs; names are unique over the three."""
    homes: dict[str, dict[str, Any]] = {"sampler": {}, "optim": {}, "method": {}}
    for name, value in options.items():
        if name in SamplerConfig.model_fields:
            homes["sampler"][name] = value
        elif name in OptimConfig.model_fields:
            homes["optim"][name] = value
        elif name in kind.Config.model_fields:
            homes["method"][name] = value
        else:
            known = sorted({*SamplerConfig.model_fields, *OptimConfig.model_fields, *kind.Config.model_fields})
            raise InputError(f"The method '{kind.name}' has no option '{name}': --set takes {', '.join(known)}.")
    checked = kind.Config.checked(homes["method"], "--set")
    return (
        SamplerConfig.checked(homes["sampler"], "--set"),
        OptimConfig.checked(homes["optim"], "--set"),
        checked.model_dump(mode="json"),
    )


def _epoch_steps(
    kind: type[Method], chosen: Plan, data: TrainingData, sampler: SamplerConfig, request: TrainRequest
) -> int | None:
    if request.minutes:
        return None
    if kind.name == "csl":
        return chosen.steps(len(data.images), sampler.batch_unlabeled)  # one crop per image and epoch, as in the paper
    cells = sum(
        -(-h // request.subimage) * -(-w // request.subimage) for h, w in (image.shape for image in data.images)
    )
    # Where most or all cells are labeled, as many steps as with few: the papers' rows differ in labels alone.
    return chosen.steps(max(len(data.labeled), cells - len(data.labeled)), sampler.batch_unlabeled)


def _weights(network: str, request: TrainRequest, device: torch.device) -> str:
    """Return what the network begins with: pretrained weights, unless time is too short to make anything of them."""
    if request.weights != "auto":
        return request.weights
    if network == NO_NETWORK:
        return "none"
    worth_it = device.type != "cpu" or request.preset == "paper"
    return "imagenet" if worth_it and network_spec(network).pretrained else "none"


def _stain(data: TrainingData) -> Stain:
    """Return what the fourth input shows: what nuclei stand out by in most of the images, of a few of them."""
    some = data.images[:: -(-len(data.images) // STAIN_IMAGES)]
    stains = [find_stain(image.overview(512), image.gray) for image in some]
    return max(sorted(set(stains)), key=stains.count)
