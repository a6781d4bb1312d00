"""Presets hold options that exist."""

from __future__ import annotations

import pytest

from napari_semiseg.data.sampler import SamplerConfig
from napari_semiseg.engine.optim import OptimConfig
from napari_semiseg.engine.presets import ABLATIONS, PAPER, Plan, plan
from napari_semiseg.engine.requests import Preset
from napari_semiseg.methods._base import NO_NETWORK
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.nn._registry import NETWORKS

ROWS = [(method, name, plan) for method, rows in ABLATIONS.items() for name, plan in rows.items()]


@pytest.mark.parametrize(("method", "name", "row"), ROWS, ids=[f"{method}: {name}" for method, name, _ in ROWS])
def test_every_row_of_an_ablation_names_options_and_a_network_that_exist(method: str, name: str, row: Plan) -> None:
    configs = (SamplerConfig, OptimConfig, METHODS[method].Config)
    for config in configs:
        own = {key: value for key, value in row.options.items() if key in config.model_fields}
        assert config.checked(own, name).model_dump().items() >= own.items()
    assert all(any(key in config.model_fields for config in configs) for key in row.options)
    assert row.network in NETWORKS


@pytest.mark.parametrize("method", METHODS)
def test_every_preset_of_a_method_names_options_and_a_network_that_exist(method: str) -> None:
    configs = (SamplerConfig, OptimConfig, METHODS[method].Config)
    for chosen in (plan(preset, method, device) for preset in ("quick", "paper") for device in ("cpu", "cuda")):
        for config in configs:
            own = {key: value for key, value in chosen.options.items() if key in config.model_fields}
            assert config.checked(own, method).model_dump().items() >= own.items()
        assert all(any(key in config.model_fields for config in configs) for key in chosen.options)
        assert chosen.network in {*NETWORKS, NO_NETWORK}


@pytest.mark.parametrize("preset", ["quick", "standard", "best"])
def test_what_one_click_trains_is_shown_the_stain_on_every_device(preset: Preset) -> None:
    assert {plan(preset, "stain_guided", device).network for device in ("cpu", "cuda", "mps")} == {"stain_unet"}


def test_the_whole_of_crcfp_is_its_third_scheme_with_1200_negatives_and_four_heads() -> None:
    rows, defaults = ABLATIONS["crcfp"], METHODS["crcfp"].Config()
    assert rows["table 4, scheme 3"] == PAPER["crcfp"]
    assert {**PAPER["crcfp"].options, "negatives": defaults.negatives} == rows["table 5, 1200"].options
    assert {**PAPER["crcfp"].options, "auxiliaries": defaults.auxiliaries} == rows["table 6, 4"].options


def test_there_is_a_row_for_each_of_the_papers_tables_3_to_6() -> None:
    counts = [sum(name.startswith(f"table {number}") for name in ABLATIONS["crcfp"]) for number in (3, 4, 5, 6)]
    assert counts == [1, 4, 6, 6]
