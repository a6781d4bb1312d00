"""How a run that counts in minutes divides its time between learning and judging."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.engine.judge import FEWEST_JUDGES, VALIDATIONS, Fit, dice_of_regions, pace, threshold_dice
from napari_semiseg.engine.recipe import prepare
from napari_semiseg.engine.requests import TrainRequest


@pytest.mark.parametrize("regions", [1, 3, 12, 120])
@pytest.mark.parametrize("region", [0.02, 0.6, 5.0])
def test_judging_takes_no_more_than_its_share_however_many_cells_are_set_aside(regions: int, region: float) -> None:
    plan = pace(180.0, 0.4, region, regions)
    judging = plan.validations * plan.judges * region

    assert min(regions, FEWEST_JUDGES) <= plan.judges <= regions
    assert 1 <= plan.validations <= VALIDATIONS
    assert judging <= 0.25 * 180 + 1e-6
    assert 170 <= judging + plan.steps * 0.4 <= 180.5


def test_with_few_small_cells_nothing_is_given_up() -> None:
    assert pace(180.0, 0.4, 0.1, 3) == (427, VALIDATIONS, 3)


def test_without_judges_all_the_time_is_for_learning() -> None:
    assert pace(60.0, 0.5, 0.0, 0).steps == 120


def test_only_the_regions_that_judge_are_looked_at(
    quick_request: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = prepare(quick_request(labeled=None, validation=0.5, steps=1))
    recipe.choices = recipe.choices.model_copy(update={"judges": 2})
    looked: list[str] = []

    def noted(recipe: object, region: object) -> float:
        looked.append(region.name)  # type: ignore[attr-defined]
        return 0.5

    monkeypatch.setattr("napari_semiseg.engine.judge._dice", noted)

    assert set(dice_of_regions(recipe).values()) == {0.5}
    assert looked == [region.name for region in recipe.data.validation[:2]]
    assert len(recipe.data.validation) == 6
    assert threshold_dice(recipe) > 0.9


def test_what_is_learned_from_is_scored_by_turns_in_a_small_share_of_the_time(
    quick_request: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = prepare(quick_request(labeled="3", steps=1))
    recipe.data.labeled[1].label[:40] = IGNORE  # of these few pixels nothing can be said
    monkeypatch.setattr("napari_semiseg.engine.judge._dice", lambda recipe, region: 0.5)
    monkeypatch.setattr("napari_semiseg.engine.judge.FIT_SHARE", 0.0)
    names = [recipe.data.labeled[0].name, recipe.data.labeled[2].name]
    fit = Fit(recipe)

    assert [list(fit.scores(step)) for step in (5, 10, 15)] == [[names[0]], [names[1]], [names[0]]]
    monkeypatch.setattr("napari_semiseg.engine.judge.FIT_SHARE", 1e6)
    assert fit.scores(20) == dict.fromkeys([names[1], names[0]], 0.5)
    assert fit.scores(20) == {}


def test_a_run_of_minutes_writes_down_how_often_and_by_how_many_it_is_judged(
    quick_request: Callable[..., TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_semiseg.engine.recipe.seconds_per_region", lambda recipe: 2.0)
    monkeypatch.setattr("napari_semiseg.engine.recipe.seconds_per_step", lambda recipe: 0.1)
    recipe = prepare(quick_request(labeled=None, validation=0.5, steps=None, minutes=2))

    assert (recipe.choices.validations, recipe.choices.judges) == (5, 3)
    assert recipe.choices.steps == 900
    assert any("3 of the 6" in note for note in recipe.notes)
