"""A benchmark: its rows, what it writes, how it goes on, and how it is shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from matplotlib.figure import Figure

from napari_semiseg.engine import benchmark as module
from napari_semiseg.engine import benchmark_plots as module_plots
from napari_semiseg.engine.benchmark import Benchmark, BenchmarkRequest, benchmark
from napari_semiseg.engine.benchmark_budget import Budget
from napari_semiseg.engine.benchmark_report import COLUMNS, mean_and_spread, table_of
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.papers import ROWS, paper_rows
from napari_semiseg.errors import InputError
from napari_semiseg.events import Finished, Stop, Warned
from napari_semiseg.metrics import confusion, dice
from napari_semiseg.postprocess.opened_closed import opened_and_closed
from napari_semiseg.postprocess.threshold import hematoxylin_threshold

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def ask(small_dataset, tmp_path):
    """Ask for a benchmark of seconds; everything can be overridden."""

    def request(**changes):
        values = {
            "dataset": str(small_dataset),
            "out": str(tmp_path / "bench"),
            "methods": ("hematoxylin_threshold", "intensity_threshold"),
            "fractions": ("1/2",),
            "seeds": 2,
            "subimage": 64,
            "device": "cpu",
        }
        return BenchmarkRequest.checked(values | changes, "the request")

    return request


def results(request):
    return json.loads((Path(request.out) / "results.json").read_text(encoding="utf-8"))


def test_each_method_has_a_row_for_each_seed_and_what_needs_no_label_has_one(ask):
    work = Benchmark(ask(fractions=("1/2", "3", "1")))
    planned = [(row.method, row.labeled, row.seed) for row in work.rows]

    assert planned[0] == ("hematoxylin_threshold", "0", 0)
    assert planned[1:] == [("intensity_threshold", labeled, seed) for labeled in ("1/2", "3", "1") for seed in (0, 1)]


def test_auto_is_the_method_that_one_click_trains(ask):
    rows = Benchmark(ask(methods=("auto", "supervised", "stain_guided"))).rows

    assert [(row.method, row.seed) for row in rows] == [
        ("stain_guided", 0), ("stain_guided", 1), ("supervised", 0), ("supervised", 1),
    ]  # fmt: skip


def test_results_table_and_plots_are_written_with_where_they_come_from(ask):
    request = ask()
    events = list(benchmark(request))
    found = results(request)

    assert events[-1] == Finished("benchmark", request.out, facts={"rows": 3, "missing": 0})
    assert found["rows_finished"] == found["rows_planned"] == 3
    for row in found["rows"]:
        assert row["device"]
        assert row["commit"]
        assert {"torch", "python"} <= row["versions"].keys()
        assert set(COLUMNS) <= row["scores"].keys()
        assert [image["name"] for image in row["images"]] == ["field-3"]
    assert {row["cells"] for row in found["rows"] if row["method"] == "intensity_threshold"} == {6}
    table = (Path(request.out) / "table.md").read_text(encoding="utf-8")
    assert "| `hematoxylin_threshold` |" in table
    assert "Unfinished" not in table
    for name in ("dice_over_labels", "dice_over_minutes", "dice_by_image"):
        assert (Path(request.out) / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_the_threshold_has_the_score_of_otsus_mask_on_hematoxylin(ask, small_dataset):
    request = ask(methods=("hematoxylin_threshold",))
    list(benchmark(request))
    image = tifffile.imread(small_dataset / "images" / "field-3.tif")
    truth = tifffile.imread(small_dataset / "labels" / "field-3.tif") > 0
    mask = hematoxylin_threshold(image)

    [row] = results(request)["rows"]
    assert row["scores"]["dice"] == pytest.approx(dice(confusion(mask, truth)))
    cells = [np.s_[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    assert row["scores"]["dice_cells"] == pytest.approx(np.mean([dice(confusion(mask[c], truth[c])) for c in cells]))
    assert row["scores"]["dice_opened"] == pytest.approx(dice(confusion(opened_and_closed(mask), truth)))


def test_a_finished_row_is_never_computed_again(ask, monkeypatch):
    request = ask()
    list(benchmark(request))
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("it was trained again"))
    events = list(benchmark(request))

    assert events[-1].facts == {"rows": 3, "missing": 0}


def test_more_seeds_and_methods_are_added_to_what_is_there(ask):
    list(benchmark(ask(seeds=1)))
    before = {path: path.stat().st_mtime_ns for path in (Path(ask().out) / "rows").iterdir()}
    list(benchmark(ask(seeds=2)))

    assert len(results(ask())["rows"]) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_stop_keeps_what_is_finished_readable_and_the_same_command_goes_on(ask):
    request, control = ask(), Control()
    for event in (running := benchmark(request, control)):
        if type(event).__name__ == "Progressed" and event.what == "rows" and event.done == 1:
            control.send(Stop())
            break
    ended = list(running)[-1]

    assert ended.stopped
    assert len(results(request)["rows"]) == 1
    assert "Unfinished: 1 of 3 rows" in (Path(request.out) / "table.md").read_text(encoding="utf-8")
    assert list(benchmark(request))[-1].facts["rows"] == 3


def test_a_training_that_was_broken_off_goes_on_at_its_checkpoint(ask):
    options = {"crop": 64, "batch_labeled": 2}
    request = ask(methods=("supervised",), seeds=1, network="small_unet", steps=4, set=options)
    control = Control()
    for event in (running := benchmark(request, control)):
        if type(event).__name__ == "StepDone":
            control.send(Stop())
            break
    assert list(running)[-1].stopped
    [run] = (Path(request.out) / "runs").iterdir()
    before = (run / "events.jsonl").read_text()
    list(benchmark(request))

    [row] = results(request)["rows"]
    assert row["steps"] == 4
    log = (run / "events.jsonl").read_text()
    assert log.startswith(before)
    steps = [json.loads(line)["step"] for line in log.splitlines() if '"StepDone"' in line]
    assert steps == sorted(set(steps)), "no step was made twice"


def test_another_part_is_scored_without_another_training(ask, small_dataset, monkeypatch):
    parts = json.loads((small_dataset / "splits.json").read_text())
    parts["val"] = parts["train"][2:]
    parts["train"] = parts["train"][:2]
    (small_dataset / "splits.json").write_text(json.dumps(parts))
    list(benchmark(ask(part="val", seeds=1)))
    list(benchmark(ask(part="test", seeds=1)))

    assert len(list((Path(ask().out) / "runs").iterdir())) == 2
    assert {image["name"] for row in results(ask())["rows"] for image in row["images"]} == {"field-3"}


def test_whole_images_are_drawn_where_they_are_asked_for(ask):
    request = ask(by="images", fractions=("1/3",), methods=("intensity_threshold",))
    list(benchmark(request))

    for row in results(request)["rows"]:
        assert len({name.partition("#")[0] for name in row["labels_seen"]}) == 1
        assert row["cells"] == 4


def test_it_learns_on_one_set_and_scores_another(ask, small_dataset, tmp_path):
    other = tmp_path / "other"
    for name in ("images", "labels"):
        (other / name).mkdir(parents=True)
        source = small_dataset / name / "field-0.tif"
        (other / name / "elsewhere.tif").write_bytes(source.read_bytes())
    (other / "splits.json").write_text(json.dumps({"test": ["elsewhere"]}))
    request = ask(test=str(other), seeds=1)
    list(benchmark(request))

    for row in results(request)["rows"]:
        assert row["scored_on"]["dataset"] == "other"
        assert row["learned_from"]["dataset"] == "fields"
        assert [image["name"] for image in row["images"]] == ["elsewhere"]


def test_classes_are_learned_and_scored_by_the_methods_that_can(ask, small_dataset):
    (small_dataset / "classes").mkdir()
    for path in (small_dataset / "labels").iterdir():
        instances = tifffile.imread(path)
        kinds = np.where(instances > 0, 1 + instances % 2, 0).astype(np.uint8)
        tifffile.imwrite(small_dataset / "classes" / path.name, kinds)
    (small_dataset / "classes.json").write_text(json.dumps({"0": "background", "1": "round", "2": "flat"}))
    request = ask(
        methods=("intensity_threshold", "random_forest"),
        seeds=1,
        classes=True,
        set={"random_forest.trees": 3, "leaves": 20, "pixels": 500},
    )
    list(benchmark(request))
    scores = {row["method"]: row["scores"] for row in results(request)["rows"]}

    assert {"mdice", "miou", "dice_round", "dice_flat"} <= scores["random_forest"].keys()
    assert "mdice" not in scores["intensity_threshold"]
    table = (Path(request.out) / "table.md").read_text(encoding="utf-8")
    assert "mDice, all classes" in table
    assert table.splitlines()[0].endswith(", in classes")


def test_a_row_that_cannot_be_had_is_said_and_the_others_go_on(ask):
    request = ask(fractions=("1000",), seeds=1)
    events = list(benchmark(request))

    assert any(isinstance(event, Warned) and "1000" in event.message for event in events)
    found = results(request)
    assert [row["method"] for row in found["rows"]] == ["hematoxylin_threshold"]
    assert len(found["failed"]) == 1
    table = (Path(request.out) / "table.md").read_text(encoding="utf-8")
    assert "- No row `intensity_threshold-1000-0-" in table
    assert "Unfinished" not in table, "no other run would have that row either"


def test_each_budget_is_a_row_but_of_methods_that_are_fitted_at_once(ask):
    rows = Benchmark(ask(methods=("intensity_threshold", "supervised"), seeds=1, minutes="5, 2,5")).rows

    assert [(row.method, row.budget) for row in rows] == [
        ("intensity_threshold", Budget()), ("supervised", Budget(minutes=2)), ("supervised", Budget(minutes=5)),
    ]  # fmt: skip
    assert len({row.name for row in rows}) == 3


def test_a_row_of_one_budget_among_several_is_the_row_that_it_is_alone(ask):
    alone = {ask(methods=("supervised",), steps=steps).steps: steps for steps in (100, 200)}
    rows = {steps: Benchmark(ask(methods=("supervised",), steps=steps)).rows for steps in (100, 200)}

    assert alone == {(100,): 100, (200,): 200}
    both = ask(methods=("supervised",), steps=[100, 200])
    assert set(Benchmark(both).rows) == {*rows[100], *rows[200]}
    assert BenchmarkRequest.checked(both.model_dump(mode="json"), "what a process is given") == both


@pytest.mark.parametrize("name", ["monuseg-15-cells", "monuseg-more-labels"])
def test_rows_that_were_finished_when_there_was_one_budget_keep_their_keys(name, tmp_path):
    kept, more = (json.loads((RESULTS / f"{file}.json").read_text()) for file in (name, "monuseg-more-labels"))
    every = next(row["labels_seen"] for row in more["rows"] if row["labeled"] == "1")
    stems = sorted({cell.partition("#")[0] for cell in every})
    folder = tmp_path / "monuseg"
    for part in ("images", "labels"):  # what lies in them is no part of a key
        (folder / part).mkdir(parents=True)
    (folder / "splits.json").write_text(json.dumps({"train": stems, "test": ["one"]}))
    asked = kept["request"] | {"dataset": str(folder), "out": str(tmp_path / "out")}
    request = BenchmarkRequest.checked(asked, "the request")

    assert request.model_dump(mode="json") == asked | {"variants": []}
    planned = {(row.method, row.labeled, row.seed, row.key) for row in Benchmark(request).rows}
    assert planned >= {(row["method"], row["labeled"], row["seed"], row["key"]) for row in kept["rows"]}


def test_budgets_are_trained_one_after_the_other_and_more_can_be_added(ask):
    def asked(steps):
        options = {"crop": 64, "batch_labeled": 2}
        return ask(methods=("supervised",), seeds=1, network="small_unet", steps=steps, set=options)

    list(benchmark(asked("2")))
    before = {path: path.stat().st_mtime_ns for path in (Path(ask().out) / "rows").iterdir()}
    request = asked("2,4")
    list(benchmark(request))
    found = results(request)

    assert found["request"]["steps"] == [2, 4]
    assert [(row["steps"], row["budget"]["steps"]) for row in found["rows"]] == [(2, 2), (4, 4)]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    table = (Path(request.out) / "table.md").read_text(encoding="utf-8")
    assert "2 and 4 steps a training" in table
    assert [line.split("|")[3] for line in table.splitlines() if line.startswith("| `supervised`")] == [
        " 2 steps ", " 4 steps ",
    ]  # fmt: skip
    assert (Path(request.out) / "dice_over_steps.png").read_bytes()[:4] == b"\x89PNG"


def of_two_codes(ask, **changes):
    """Ask for two rows of one method, beside the method as its preset has it."""
    values = {
        "methods": ("mean_teacher",),
        "variants": ("mean_teacher=PixelSSL", "mean_teacher=SSL4MIS"),
        "seeds": 1,
        "network": "small_unet",
        "steps": 2,
        "set": {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2},
    }
    return ask(**values | changes)


def test_two_variants_of_a_method_are_two_lines_beside_it(ask):
    request = of_two_codes(ask)
    list(benchmark(request))
    found = results(request)["rows"]

    assert [row["variant"] for row in found] == ["", "PixelSSL", "SSL4MIS"]
    assert [row["options"]["options"]["distance"] for row in found] == ["probs", "logits", "probs"]
    assert [row["budget"]["preset"] for row in found] == ["standard", "paper", "paper"]
    assert len(list((Path(request.out) / "runs").iterdir())) == 3
    table = (Path(request.out) / "table.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| `")] == [
        "`mean_teacher`", "`mean_teacher`: PixelSSL", "`mean_teacher`: SSL4MIS",
    ]  # fmt: skip
    for row, run in zip(found, Benchmark(request).rows, strict=True):
        config = json.loads((Path(request.out) / "runs" / run.run / "run.json").read_text(encoding="utf-8"))
        assert config["request"]["variant"] == row["variant"]


def test_every_row_of_a_table_is_planned_for_every_seed_and_none_shares_a_folder(ask):
    request = of_two_codes(ask, methods=("hematoxylin_threshold",), variants=("crcfp=table 4", "csl=table 1"), seeds=2)
    rows = Benchmark(request).rows

    planned = [(row.variant, row.seed) for row in rows if row.method == "crcfp"]
    names = ("SupOnly", "scheme 1", "scheme 2", "scheme 3")
    assert planned == [(f"table 4, {name}", seed) for name in names for seed in (0, 1)]
    assert sum(row.method == "csl" for row in rows) == 20
    assert len({row.run for row in rows}) == len(rows) == 29
    assert {row.labeled for row in rows if row.method == "csl"} == {"0"}
    assert rows[1].run.startswith("crcfp.table-4-SupOnly-1_2-0-"), "a folder, and a row that is missing, say what it is"


def test_a_variant_has_the_same_rows_whatever_the_preset_and_whatever_stands_beside_it(ask):
    alone = Benchmark(of_two_codes(ask, variants=("mean_teacher=SSL4MIS",))).rows
    other = Benchmark(of_two_codes(ask, preset="quick", methods=("supervised",))).rows

    assert alone[1:] == [row for row in other if row.variant == "SSL4MIS"]


def test_a_variant_s_training_that_was_broken_off_goes_on_as_that_variant(ask):
    request, control = of_two_codes(ask, methods=("hematoxylin_threshold",), steps=4), Control()
    for event in (running := benchmark(request, control)):
        if type(event).__name__ == "StepDone":
            control.send(Stop())
            break
    assert list(running)[-1].stopped
    list(benchmark(request))

    found = {row["variant"]: row for row in results(request)["rows"]}
    assert {name: row["steps"] for name, row in found.items() if name} == {"PixelSSL": 4, "SSL4MIS": 4}
    assert found["PixelSSL"]["options"]["options"]["weight_con"] == 1.0
    assert found["SSL4MIS"]["options"]["options"]["weight_con"] == 0.1


def test_runs_of_two_variants_are_never_averaged_and_each_has_its_curve(axes):
    rows = [finished("cdcl", score=score) | {"variant": f"scheme {score}"} for score in (0.6, 0.7)]
    rows += [finished("cdcl", score=0.8)]  # as rows were written before there were variants
    table = table_of(rows, ASKED, 3, {}, "monuseg")
    module_plots._over_labels(axes, rows)

    found = [[cell.strip() for cell in line.split("|")[1:4]] for line in table.splitlines() if line.startswith("| `")]
    assert found == [
        ["`cdcl`: scheme 0.6", "12", "0.600"], ["`cdcl`: scheme 0.7", "12", "0.700"], ["`cdcl`", "12", "0.800"],
    ]  # fmt: skip
    assert set(curves(axes)) == {"cdcl: scheme 0.6", "cdcl: scheme 0.7", "cdcl"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minutes": 1, "steps": 1}, "not both"),
        ({"minutes": "2,5", "steps": "100"}, "not both"),
        ({"minutes": "2,soon"}, "--minutes takes numbers above 0 .* as --minutes 2,5,10: 'soon' is none"),
        ({"minutes": "2,,5"}, "'' is none"),
        ({"minutes": [5, 0]}, "'0' is none"),
        ({"minutes": "nan"}, "'nan' is none"),
        ({"minutes": 1e6}, "up to 100,000"),
        ({"steps": "100,2.5"}, "--steps takes whole numbers from 1 .* '2.5' is none"),
        ({"steps": (100, 2.5)}, "'2.5' is none"),
        ({"steps": -1}, "'-1' is none"),
        ({"seeds": "0"}, "--seeds takes a count from 1 to 1,000, or seeds .* as --seeds 3,4: '0' is neither"),
        ({"seeds": "3,x"}, "'x' is neither"),
        ({"seeds": "3,,4"}, "'' is neither"),
        ({"seeds": ","}, "'' is neither"),
        ({"seeds": [-1]}, "'-1' is neither"),
        ({"seeds": [1.5]}, "'1.5' is neither"),
        ({"seeds": []}, "is neither"),
        ({"part": "train"}, "cannot be scored"),
        ({"methods": ("guess",)}, "no method 'guess'"),
        ({"variants": ("cdcl=table 7",)}, "'cdcl' has no variant 'table 7': choose one of table 2, scheme 1; .*"),
        ({"variants": ("tcsm=table 2",)}, "'tcsm' has no variants"),
        ({"variants": ("table 2, scheme 1",)}, "--variant takes method=name, not 'table 2, scheme 1'"),
        ({"fractions": ("half",)}, "neither a fraction"),
        ({"set": {"trees": 3}}, "None of these methods"),
        ({"set": {"cdcl.temperature": 3}}, "not among the methods"),
        ({"classes": True}, "no classes/"),
    ],
)
def test_what_cannot_be_met_is_said_before_anything_is_computed(ask, changes, said):
    with pytest.raises(InputError, match=said):
        list(benchmark(ask(**changes)))


def test_two_processes_share_the_rows_and_say_why_one_cannot_be_had(ask):
    request = ask(device="cpu,cpu", seeds=1, fractions=("1/2", "1000"))
    events = list(benchmark(request))

    assert events[-1].facts == {"rows": 2, "missing": 1}
    [(name, why)] = results(request)["failed"].items()
    assert name.startswith("intensity_threshold-1000-0-")
    assert "1000" in why
    assert Path(request.out, "table.md").read_text(encoding="utf-8").endswith(f"- No row `{name}`: {why}\n")


def test_the_papers_stand_beside_runs_with_as_many_labels():
    fitting = {(row.paper, row.method) for row in paper_rows("monuseg") if row.fits("15", 15)}
    assert fitting == {("CRCFP 2024", name) for name in ("DeepLab", "CCT", "CAC", "CDCL", "CRCFP")}

    twelve = {row.paper for row in paper_rows("MoNuSeg") if row.fits("12", 12)}
    assert twelve == {"CDCL 2022"}
    assert {row.paper for row in paper_rows("monuseg") if row.fits("1/32", 12)} == {"CDCL 2022", "CRCFP 2024"}
    assert not paper_rows("my-own")


def test_a_paper_that_learns_from_one_set_and_scores_another_stands_beside_the_same_pair():
    def first(scored, trained):
        return {row.method: row.scores for row in paper_rows(scored, trained) if row.fits("1/32", None)}

    assert first("lucchi-Lucchi", "MitoEM-R")["DualRel"] == {"iou": 0.5662, "dice": 0.7059}
    assert first("lucchi++-Lucchi++", "MitoEM-R")["DualRel"] == {"iou": 0.5392, "dice": 0.6811}
    assert first("lucchi-Lucchi", "MitoEM-H")["MT"] == {"iou": 0.2994, "dice": 0.4630}
    assert not first("lucchi-Lucchi", ""), "it learned from none of its images"
    assert not first("monuseg", "consep"), "no paper learned from the one and scored the other"
    asked = ASKED | {"dataset": "data/MitoEM-R", "test": "data/Lucchi"}
    table = table_of([finished() | {"labeled": "1/32"}], asked, 1, {}, "lucchi-Lucchi")
    assert "| *DualRel (DualRel 2023)* | 1/32 | 0.706 |" in table


def test_the_papers_figures_are_those_that_are_printed():
    by_name = {(row.dataset, row.paper, row.method, row.labeled): row.scores for row in ROWS}

    assert by_name["monuseg", "CDCL 2022", "CDCL", "1/32"] == {
        "dice": 0.7597,
        "iou": 0.6177,
        "accuracy": 0.8983,
        "accuracy_pooled": 0.8983,
        "specificity": 0.9103,
        "sensitivity": 0.8536,
    }
    assert by_name["dsb2018", "CDCL 2022", "CDCL, U-Net", "1/8"]["dice"] == 0.8778
    assert "accuracy_pooled" not in by_name["dsb2018", "CDCL 2022", "FullSup", "1"], "its images differ in size"
    assert by_name["bcss", "CRCFP 2024", "CRCFP, ResNet-101", "1/2"] == {
        "miou": 0.6301,
        "mdice": 0.7657,
        "accuracy_classes": 0.8167,
    }
    assert by_name["tnbc", "CSL 2023", "CSL, ce, best of ten", "0"] == {"dice": 0.5101}
    assert by_name["monuseg", "CRCFP 2024", "CRCFP", "1/32"] == {
        "miou_two_class": 0.7172,
        "mdice_two_class": 0.8260,
        "accuracy_pooled": 0.8886,
    }
    assert by_name["consep", "CSL 2023", "Scale-Pretext", "0"] == {"dice": 0.5139}
    assert all(0 < value < 1 for row in ROWS for value in row.scores.values())


def finished(method="supervised", cells=12, score=0.5, minutes=1.0):
    return {
        "method": method,
        "labeled": str(cells),
        "cells": cells,
        "budget": {"minutes": minutes, "steps": None, "preset": "quick"},
        "seconds_training": 60 * minutes,
        "steps": 5,
        "device": "a processor",
        "commit": "abc",
        "versions": {"torch": "2"},
        "scores": dict.fromkeys(COLUMNS, score),
    }


ASKED = {
    "dataset": "data/monuseg", "part": "test", "test": None, "split": "train", "minutes": 1, "steps": None,
    "preset": "quick", "by": "cells", "splits": None,
}  # fmt: skip


def test_runs_with_labels_and_without_are_rows_of_their_own():
    rows = [finished("stain_guided", cells, score) for cells, score in ((0, 0.7), (15, 0.8), (15, 0.82))]
    asked = ASKED | {"splits": "home/of/whoever/organs.json"}
    table = table_of(rows, asked, 3, {}, "monuseg")
    found = [line.split("|")[2:4] for line in table.splitlines() if line.startswith("| `stain_guided`")]

    assert found == [[" 0 ", " 0.700 "], [" 15 ", " 0.810 ± 0.014 "]]
    assert table.startswith("# monuseg, scored on `test` of monuseg as `organs.json` parts it\n")


def test_runs_of_several_budgets_are_never_averaged_and_stand_beside_each_other_by_budget():
    rows = [finished(score=score, minutes=minutes) for minutes, score in ((2.0, 0.7), (2.0, 0.72), (10.0, 0.8))]
    rows += [finished("cdcl", score=0.6, minutes=2.0), finished("hematoxylin_threshold", 0, 0.5)]
    table = table_of(rows, ASKED | {"minutes": [2.0, 10.0]}, 5, {}, "monuseg")
    found = [[cell.strip() for cell in line.split("|")[1:5]] for line in table.splitlines() if line.startswith("| `")]

    assert found == [
        ["`hematoxylin_threshold`", "0", "", "0.500"],
        ["`supervised`", "12", "2 minutes", "0.710 ± 0.014"],
        ["`cdcl`", "12", "2 minutes", "0.600"],
        ["`supervised`", "12", "10 minutes", "0.800"],
    ]
    assert ", 2 and 10 minutes a training," in table
    widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert len(widths) == 1, "the papers' rows have the column too"


@pytest.fixture
def axes():
    return Figure().add_subplot()


def curves(axes):
    """Return the points of each curve by its label, and how far up and down the bars of its points go."""
    found = {}
    for bars in axes.containers:
        line, _, (heights,) = bars.lines
        ends = [np.reshape(segment, (-1, 2))[:, 1] for segment in heights.get_segments()]
        spread = [float(np.ptp(each)) / 2 if len(each) else None for each in ends]
        found[bars.get_label()] = [*zip(line.get_xdata(), line.get_ydata(), spread, strict=True)]
    return found


def test_dice_over_minutes_is_a_curve_for_each_method_and_amount_of_labels(axes):
    rows = [
        finished(cells=cells, score=score + shift, minutes=minutes)
        for cells in (12, 48)
        for minutes, score in ((2.0, 0.7), (10.0, 0.8))
        for shift in (-0.01, 0.01)
    ]
    rows += [finished("random_forest", score=0.6, minutes=3.0)]
    module_plots._over_length(axes, rows, "minutes", lambda row: row["seconds_training"] / 60)
    found = curves(axes)

    sd = pytest.approx(0.01 * 2**0.5)
    assert found["supervised, 12"] == [(2, pytest.approx(0.7), sd), (10, pytest.approx(0.8), sd)]
    assert found["supervised, 48"] == found["supervised, 12"]
    assert [point[:2] for point in found["random_forest"]] == [(3, 0.6)], "a fitted method has one point"
    level = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == 0.6]
    assert [list(line.get_xdata()) for line in level] == [[3, 10]], "and stays where it is"


def test_the_plots_over_labels_and_by_image_show_the_longest_trainings_and_say_so(axes):
    rows = [finished(score=score, minutes=minutes) for minutes, score in ((2.0, 0.7), (10.0, 0.8))]
    rows += [finished("random_forest", score=0.6, minutes=2.0)]
    module_plots._over_labels(axes, rows)

    assert {name: points[0][1] for name, points in curves(axes).items()} == {"supervised": 0.8, "random_forest": 0.6}
    assert axes.get_title() == "10 minutes a training"


def test_a_papers_row_fills_only_the_columns_that_it_defines():
    table = table_of([finished()], ASKED, 1, {}, "monuseg")
    [line] = [line for line in table.splitlines() if line.startswith("| *CDCL (CDCL 2022)*")]

    assert [cell.strip() for cell in line.split("|")[3:-1]] == ["0.760", "", "0.618", "", "", "", "0.898", *[""] * 5]


def test_a_paper_that_drew_cells_does_not_stand_beside_whole_images():
    def papers(**asked):
        table = table_of([finished()], ASKED | asked, 1, {}, "monuseg")
        return [line for line in table.splitlines() if "CDCL 2022" in line]

    assert papers()
    assert not papers(by="images")


def test_a_papers_row_of_all_labels_says_so():
    rows = [finished() | {"labeled": "1"}, finished("csl", 0) | {"labeled": "0"}]
    table = table_of(rows, ASKED, 2, {}, "consep")
    found = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines() if line.startswith("| *")]

    assert found[:3] == [
        ["*threshold on gray levels (CSL 2023)*", "all"],
        ["*supervised tiny CNN (CSL 2023)*", "all"],
        ["*Scale-Pretext (CSL 2023)*", "0"],
    ]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_kept_tables_say_of_their_figures_what_the_report_says_today(path):
    kept = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(kept, dict) or "papers" not in kept:
        pytest.skip("no benchmark")
    scored = kept["rows"][0]["scored_on"]["dataset"]
    table = table_of(kept["rows"], kept["request"], kept["rows_planned"], kept["failed"], scored)
    said, written = table.splitlines(), path.with_suffix(".md").read_text(encoding="utf-8").splitlines()

    assert written[2].startswith(said[2]), "what was said of the machine follows"
    assert [*written[:2], *written[3:]] == [*said[:2], *said[3:]], "run python benchmarks/reword.py"


@pytest.mark.parametrize(
    ("given", "kept", "seeds"),
    [
        (2, 2, [0, 1]),
        ("2", 2, [0, 1]),
        ("3,4", [3, 4], [3, 4]),
        ("4,", [4], [4]),
        ([4], [4], [4]),
        ((0, 4, 0), [0, 4], [0, 4]),
    ],
)
def test_seeds_are_a_count_or_are_named(ask, given, kept, seeds):
    request = ask(methods=("supervised", "hematoxylin_threshold"), seeds=given)
    dumped = request.model_dump(mode="json")

    assert dumped["seeds"] == kept
    assert BenchmarkRequest.checked(dumped, "results.json") == request
    planned = [(row.method, row.seed) for row in Benchmark(request).rows]
    assert planned == [*(("supervised", seed) for seed in seeds), ("hematoxylin_threshold", 0)]


def test_a_seed_that_is_named_is_the_same_row_as_the_one_that_is_counted(ask):
    counted = Benchmark(ask(methods=("supervised",), seeds=3)).rows

    assert Benchmark(ask(methods=("supervised",), seeds="1,2")).rows == counted[1:]


def test_a_spread_needs_two_runs():
    assert mean_and_spread([0.5]) == "0.500"
    assert mean_and_spread([0.4, 0.6, None]) == "0.500 ± 0.141"
    assert mean_and_spread([None]) == ""
