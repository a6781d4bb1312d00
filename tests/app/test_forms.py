"""Forms from JSON Schemas."""

from __future__ import annotations

from typing import Literal

from pydantic import Field as Option

from napari_semiseg.app.forms import fields
from napari_semiseg.config import Config


class Options(Config):
    crop: int = Option(160, ge=32, le=1024, multiple_of=32, description="Side of a crop.")
    ema_decay: float = Option(0.99, ge=0, lt=1, description="Memory.")
    rule: Literal["paper", "sum"] = Option("paper", description="Which.")
    minutes: float | None = Option(None, gt=0, le=10)
    detach: bool = True
    images: tuple[str, ...] = ()


def by_name():
    return {field.name: field for field in fields(Options.model_json_schema(), without=("detach",))}


def test_bounds_defaults_steps_and_help_come_from_the_schema():
    crop = by_name()["crop"]

    assert (crop.kind, crop.default, crop.minimum, crop.maximum, crop.step) == ("whole", 160, 32, 1024, 32)
    assert crop.help == "Side of a crop."
    assert crop.label == "Crop"


def test_an_excluded_bound_stays_excluded():
    decay = by_name()["ema_decay"]

    assert decay.label == "EMA decay"
    assert decay.maximum < 1
    Options(ema_decay=decay.maximum)


def test_a_number_that_may_be_left_open_is_a_number_without_default():
    minutes = by_name()["minutes"]

    assert (minutes.kind, minutes.default) == ("number", None)
    Options(minutes=minutes.minimum)


def test_choices_are_listed():
    assert by_name()["rule"].choices == ("paper", "sum")


def test_what_no_form_can_show_or_is_asked_elsewhere_is_left_out():
    assert set(by_name()) == {"crop", "ema_decay", "rule", "minutes"}
