"""Presets hold options that exist."""

from __future__ import annotations

import pytest

from napari_semiseg.data.sampler import SamplerConfig
from napari_semiseg.engine.optim import OptimConfig
from napari_semiseg.engine.presets import PAPER, VARIANTS, Plan, find_variant, plan, variants_named
from napari_semiseg.engine.requests import Preset
from napari_semiseg.errors import InputError
from napari_semiseg.methods._base import NO_NETWORK
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.methods.csl import TABLE_1
from napari_semiseg.nn._registry import NETWORKS, network_spec

ROWS = [(method, name, plan) for method, rows in VARIANTS.items() for name, plan in rows.items()]


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
    networks = {plan(preset, "stain_guided", device).network for device in ("cpu", "cuda", "mps")}
    assert networks == {"narrow_stain_unet", "stain_unet"}
    assert all(network_spec(network).takes_scale for network in networks)


def test_the_whole_of_crcfp_is_its_third_scheme_with_1200_negatives_and_four_heads() -> None:
    rows, defaults = VARIANTS["crcfp"], METHODS["crcfp"].Config()
    assert rows["table 4, scheme 3"] == PAPER["crcfp"]
    assert {**PAPER["crcfp"].options, "negatives": defaults.negatives} == rows["table 5, 1200"].options
    assert {**PAPER["crcfp"].options, "auxiliaries": defaults.auxiliaries} == rows["table 6, 4"].options


@pytest.mark.parametrize(
    ("method", "low", "high"),
    [("unimatch", 0.5, 2.0), ("fixmatch", 0.5, 2.0), ("cps", 0.5, 2.0), ("cac", 0.8, 2.0), ("crcfp", 0.8, 2.0)],
)
def test_crops_are_magnified_within_the_ratio_of_the_paper_and_not_rotated(
    method: str, low: float, high: float
) -> None:
    options = PAPER[method].options
    assert (1 + options["scale"]) / (1 - options["scale"]) == pytest.approx(high / low, rel=0.01)
    assert options["degrees"] == 0.0


@pytest.mark.parametrize("method", ["unimatch", "fixmatch", "cps", "cutmix_seg", "cac", "cct"])
def test_labeled_crops_keep_their_colors_where_the_paper_changes_none(method: str) -> None:
    assert PAPER[method].options["color_labeled"] == "none"


def test_there_is_a_row_for_each_of_the_papers_tables_3_to_6() -> None:
    counts = [sum(name.startswith(f"table {number}") for name in VARIANTS["crcfp"]) for number in (3, 4, 5, 6)]
    assert counts == [2, 4, 6, 6]
    larger = [VARIANTS["cct"]["CRCFP, table 3, CCT"], VARIANTS["cac"]["CRCFP, table 3, CAC"]]
    larger += [row for name, row in VARIANTS["crcfp"].items() if name.startswith("table 3")]
    assert {row.network for row in larger} == {"deeplab_resnet101"}


def test_there_is_a_row_for_each_of_cdcl_s_table_2_and_of_its_supplement() -> None:
    rows = VARIANTS["cdcl"]
    assert [sum(name.startswith(table) for name in rows) for table in ("table 2", "supplement, table 1")] == [7, 6]
    assert [sum(name.startswith(f"supplement, table {number}") for name in rows) for number in (2, 3)] == [4, 1]
    assert len(VARIANTS["supervised"]) == 2  # SupOnly of either network


def test_the_whole_of_cdcl_is_what_the_paper_chose_from_its_tables() -> None:
    rows, defaults = VARIANTS["cdcl"], METHODS["cdcl"].Config()
    assert rows["table 2, ours"] == PAPER["cdcl"]
    for name in ("table 2, ours", "supplement, table 1, 0.1", "supplement, table 2, h/8"):
        own = {key: value for key, value in rows[name].options.items() if key in type(defaults).model_fields}
        assert METHODS["cdcl"].Config(**own) == defaults


def test_the_schemes_of_cdcl_are_told_by_their_terms_and_by_where_negatives_come_from() -> None:
    config = METHODS["cdcl"].Config
    schemes = {}
    for name, row in VARIANTS["cdcl"].items():
        if name.startswith("table 2"):
            own = config(**{key: value for key, value in row.options.items() if key in config.model_fields})
            schemes[name.split(", ")[1]] = own.rule, own.weight_contr > 0, own.weight_cons > 0, own.weight_ent > 0
    assert schemes == {
        "scheme 1": ("random", True, False, False),
        "scheme 2": ("pixel", True, False, False),
        "scheme 3": ("paper", True, False, False),
        "scheme 4": ("paper", True, True, False),
        "scheme 5": ("paper", True, False, True),
        "scheme 6": ("paper", False, True, True),
        "ours": ("paper", True, True, True),
    }


def test_the_rows_of_csl_s_table_1_and_released_codes_are_their_papers_preset_and_what_they_change() -> None:
    for name, changed in TABLE_1.items():
        assert VARIANTS["csl"][f"table 1, {name}"].options == {**PAPER["csl"].options, **changed}
    assert set(VARIANTS["mean_teacher"]) == {"SSL4MIS", "TorchSemiSeg", "PixelSSL"}
    ported = find_variant("mean_teacher", "PixelSSL")
    assert (ported.network, ported.epochs) == (PAPER["mean_teacher"].network, PAPER["mean_teacher"].epochs)
    assert ported.options["distance"] == "logits"


def test_the_name_of_a_table_stands_for_all_of_its_rows() -> None:
    assert variants_named("crcfp", "table 4") == ["table 4, SupOnly", *(f"table 4, scheme {n}" for n in (1, 2, 3))]
    assert variants_named("crcfp", "table 4, scheme 1") == ["table 4, scheme 1"]
    assert variants_named("cdcl", "supplement, table 3") == ["supplement, table 3, ours"]


@pytest.mark.parametrize("name", ["table 4, scheme 9", "table 4", "table", ""])
def test_an_unknown_variant_is_refused_with_the_names_that_there_are(name: str) -> None:
    with pytest.raises(InputError, match=r"no variant .*: choose one of table 3, Dee.*; released code\.$") as said:
        find_variant("crcfp", name)
    assert str(said.value).count(". ") == 0
    with pytest.raises(InputError, match=r"'tcsm' has no variants; those that have some are supervised, cdcl"):
        find_variant("tcsm", name)
