"""How the processes of a team keep step: what the first one tells, and what the others make of it."""

from __future__ import annotations

from typing import Any

from napari_semiseg.data.learned import Learned
from napari_semiseg.engine.memory import out_of_memory
from napari_semiseg.engine.recipe import Choices, Recipe, rebuild, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.team import Team
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import FittedMethod

TOO_LITTLE_MEMORY = (
    "There is not enough memory for this process's part of the batch: "
    "take smaller crops or fewer of them, for example --set crop=160 --set batch_labeled=4."
)


def lead(team: Team, recipe: Recipe, request: TrainRequest) -> None:
    """Tell the others what will be learned, and learn it with them from now on.

    Raises
    ------
    InputError
        If the method makes no steps that could be shared.
    """
    if isinstance(recipe.method, FittedMethod):
        raise InputError(f"The method '{recipe.choices.method}' is done in one step: run it without torchrun.")
    learned = recipe.data.learned.facts()  # read with this, tiles teach and judge as they do here
    team.tell(("begin", (recipe.choices.model_dump(mode="json"), request.model_dump(mode="json"), learned)))
    recipe.team = team


def tell_state(recipe: Recipe) -> None:
    """Give the others the weights, the optimizers' memory and the way of drawing crops as they are here."""
    if recipe.team is not None:
        optimizers = [optimizer.state_dict() for optimizer in recipe.optimizers]
        recipe.team.tell(("state", (recipe.method.state_dict(), optimizers, recipe.choices.sampler)))


def tell_step(recipe: Recipe, step: int, rate: float) -> None:
    """Have the others make a step too."""
    if recipe.team is not None:
        recipe.team.tell(("step", (step, rate, recipe.turns)))


def help_out(team: Team) -> None:
    """Learn with the process that leads until it ends: what every other process does.

    Raises
    ------
    InputError
        If this process's part of a batch does not fit into memory.
    """
    recipe: Recipe | None = None
    while True:
        what, given = team.told()
        if what == "end":
            break
        if what == "begin":
            recipe = _like(team, *given)
        assert recipe is not None, "a team begins before it makes steps"
        if what == "state":
            weights, optimizers, sampler = given
            recipe.method.load_state_dict(weights)
            for optimizer, state in zip(recipe.optimizers, optimizers, strict=True):
                optimizer.load_state_dict(state)
            recipe.draw_by(sampler)
        elif what == "step":
            step, rate, recipe.turns = given
            _make(recipe, step, rate)
    team.leave()


def _make(recipe: Recipe, step: int, rate: float) -> None:
    try:
        take_step(recipe, step, rate)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(TOO_LITTLE_MEMORY) from None


def _like(team: Team, choices: dict[str, Any], request: dict[str, Any], learned: list[Any]) -> Recipe:
    """Build what the first process has built, on a device of one's own; its weights will come from there."""
    chosen = Choices.checked(choices, "what the first process chose")
    asked = TrainRequest.checked(request, "what the first process was asked")
    device = team.device("cuda" if asked.device.startswith("cuda") else asked.device)
    unfetched = chosen.model_copy(update={"weights": "none"})
    known = Learned.of({"learned": learned}, "what the first process has learned from")
    recipe = rebuild(unfetched, asked.model_copy(update={"device": device}), known)
    recipe.team = team
    return recipe
