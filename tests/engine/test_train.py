"""The training loop: what it says, what it leaves on disk, and what it survives."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_semiseg.engine import train as train_module
from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.presets import VARIANTS
from napari_semiseg.engine.recipe import Recipe, prepare, take_step
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import (
    Cancel,
    Event,
    Finished,
    Focus,
    ImagesChanged,
    Pause,
    Paused,
    PreviewWritten,
    ProposeNuclei,
    Resume,
    Resumed,
    Saved,
    Skipped,
    Started,
    StepDone,
    Stop,
    Unanswered,
    Validated,
    Warned,
    Written,
)
from napari_semiseg.methods._registry import find_method

Ask = Callable[..., TrainRequest]
CROPS = {"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def weights(run: str) -> dict[str, torch.Tensor]:
    path = RunFolder(Path(run)).latest()
    assert path is not None
    from safetensors.torch import load_file

    return load_file(path)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_says_what_it_chose_learns_and_leaves_a_model(quick_request: Ask) -> None:
    request = quick_request(steps=25)
    events = list(train(request))

    assert isinstance(events[0], Started)
    assert events[0].facts["labeled"] == events[0].facts["labeled"][:5]
    assert len(events[0].facts["validation"]) == 1  # one in four of six cells
    assert isinstance(events[-1], Finished)
    assert not events[-1].stopped
    steps = [event for event in events if isinstance(event, StepDone)]
    assert set(steps[0].losses) == {"sup"}
    tensors, card = RunFolder(Path(request.out)).read_model()
    assert card["choices"]["method"] == "supervised"
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_a_run_writes_down_every_event_and_the_versions(quick_request: Ask) -> None:
    request = quick_request()
    events = list(train(request))

    lines = (Path(request.out) / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [kind.__name__ for kind in kinds(events)]
    config = RunFolder(Path(request.out)).read_config()
    assert config["versions"]["torch"].startswith("2.")
    assert config["request"]["seed"] == 0
    assert len(config["labels"]) == 64


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(quick_request: Ask, tmp_path: Path) -> None:
    runs = [str(tmp_path / name) for name in ("one", "again", "other")]
    for out, seed in zip(runs, (3, 3, 4), strict=True):
        list(train(quick_request(out=out, seed=seed, steps=3)))

    assert same(weights(runs[0]), weights(runs[1]))
    assert not same(weights(runs[0]), weights(runs[2]))


# One optimizer; a memory; two networks; two views; pairs and their image.
@pytest.mark.parametrize("method", ["supervised", "cdcl", "cps", "unimatch", "crcfp"])
def test_a_run_stopped_and_resumed_equals_one_that_was_not(quick_request: Ask, tmp_path: Path, method: str) -> None:
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    options = {"warmup_fraction": 0.2} if "warmup_fraction" in find_method(method).Config.model_fields else {}
    list(train(quick_request(out=whole, method=method, steps=6, set=options)))

    control = Control()
    for event in train(quick_request(out=broken, method=method, steps=6, set=options), control):
        if isinstance(event, StepDone):
            control.send(Stop())
    assert not same(weights(whole), weights(broken))
    list(train(quick_request(out=broken, resume=True)))

    assert same(weights(whole), weights(broken))


def test_a_run_corrects_its_steps_and_is_repeated_to_the_bit_from_what_it_wrote_down(
    quick_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 200)  # a clock that goes a little with every look
    monkeypatch.setattr("napari_semiseg.engine.train.PATIENCE", 1e9)
    monkeypatch.setattr("napari_semiseg.engine.recipe._tried", lambda recipe: (recipe.choices, 0.01, ()))
    first, again = tmp_path / "first", tmp_path / "again"
    events = list(train(quick_request(out=str(first), steps=None, minutes=0.004, labeled="3")))
    end = events[-1]
    assert isinstance(end, Finished)

    written = RunFolder(first).read_config()
    assert written["choices"]["steps"] == 24
    assert len(written["turns"]) > 2
    assert end.facts["steps"] == written["turns"][-1][1] != 24
    assert next(event.total for event in events if isinstance(event, StepDone)) == 24

    again.mkdir()
    (again / "run.json").write_bytes((first / "run.json").read_bytes())
    repeated = list(train(quick_request(out=str(again), resume=True)))[-1]

    assert isinstance(repeated, Finished)
    assert repeated.facts["steps"] == end.facts["steps"]
    assert RunFolder(again).read_config()["turns"] == written["turns"]
    assert same(weights(str(first)), weights(str(again)))


@pytest.mark.parametrize("turns", [[[5, 5]], [[5, 9], [5, 12]], [[0, 9]], "soon"])
def test_corrections_that_cannot_be_are_refused(quick_request: Ask, turns: object) -> None:
    request = quick_request(steps=1)
    list(train(request))
    path = Path(request.out) / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"turns": turns}))

    with pytest.raises(InputError, match=r"run\.json"):
        list(train(quick_request(resume=True)))


def test_batches_drawn_ahead_teach_the_same(
    quick_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, ahead = str(tmp_path / "plain"), str(tmp_path / "ahead")
    list(train(quick_request(out=plain, method="unimatch", steps=3)))
    monkeypatch.setattr(
        Recipe, "batch", lambda self, step: self.ahead.batch(self.sampler, step, more=True).to(self.device)
    )
    list(train(quick_request(out=ahead, method="unimatch", steps=3)))

    assert same(weights(plain), weights(ahead))


def test_in_half_the_bits_the_losses_are_whole_and_weights_stay_float32(quick_request: Ask) -> None:
    recipe = prepare(quick_request(method="cdcl", set={"warmup_fraction": 0.0}))
    recipe.choices = recipe.choices.model_copy(update={"precision": "bfloat16"})
    kinds_of_terms: set[torch.dtype] = set()
    losses, kinds_of_maps = recipe.method.losses, set()

    def noted(batch, step):  # type: ignore[no-untyped-def]
        terms = losses(batch, step)
        kinds_of_terms.update(term.dtype for term in terms.values())
        return terms

    recipe.method.losses = noted  # type: ignore[method-assign]
    for part in recipe.method.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(lambda _part, _given, answer: kinds_of_maps.add(answer.dtype))
    terms, finite = take_step(recipe, 4)

    assert finite
    assert set(terms or {}) == {"sup", "cons", "ent", "contr"}
    assert kinds_of_maps == {torch.bfloat16}
    assert kinds_of_terms == {torch.float32}
    assert {weight.dtype for weight in recipe.method.parameters()} == {torch.float32}


def test_pseudo_labels_that_have_collapsed_are_told_once(quick_request: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    background = {"pseudo-labeled nuclei": 0.0}
    monkeypatch.setattr("napari_semiseg.methods.fixmatch.pseudo_label_counters", lambda *_: background)
    events = list(train(quick_request(method="fixmatch", steps=4, set={"collapse_patience": 2})))

    assert len([event for event in events if isinstance(event, Warned) and "no nucleus" in event.message]) == 1


def test_a_stopped_run_keeps_the_best_and_says_so(quick_request: Ask) -> None:
    control = Control()
    control.send(Stop())
    request = quick_request()
    events = list(train(request, control))

    assert isinstance(events[-1], Finished)
    assert events[-1].stopped
    assert not events[-1].canceled
    assert RunFolder(Path(request.out)).latest() is not None


def test_a_canceled_run_leaves_no_weights(quick_request: Ask) -> None:
    control = Control()
    request = quick_request()
    events = []
    for event in train(request, control):
        events.append(event)
        if isinstance(event, StepDone):
            control.send(Cancel())

    assert isinstance(events[-1], Finished)
    assert events[-1].canceled
    assert list((Path(request.out) / "checkpoints").iterdir()) == []
    assert (Path(request.out) / "run.json").exists()


def test_a_run_that_is_canceled_while_it_stops_leaves_no_weights(quick_request: Ask) -> None:
    control = Control()
    control.send(Stop())
    request = quick_request()
    events = []
    for event in train(request, control):
        events.append(event)
        if isinstance(event, Saved):  # it has taken the Stop by now
            control.send(Cancel())

    assert isinstance(events[-1], Finished)
    assert events[-1].canceled
    assert list((Path(request.out) / "checkpoints").iterdir()) == []


def test_a_paused_run_saves_holds_and_goes_on(quick_request: Ask) -> None:
    control = Control()
    control.send(Pause())
    events = []
    for event in train(quick_request(steps=2), control):
        events.append(event)
        if isinstance(event, Paused):
            control.send(Resume())

    found = kinds(events)
    assert found.index(Saved) < found.index(Paused) < found.index(Resumed) < found.index(Finished)


def test_time_spent_paused_is_no_time_of_the_run(quick_request: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    control, real, slept = Control(), time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + slept[0])
    events: list[Event] = []
    for event in train(quick_request(steps=4, minutes=2, labeled="3"), control):
        events.append(event)
        if isinstance(event, StepDone) and event.step == 0:
            control.send(Pause())
        if isinstance(event, Paused):
            slept[0] += 3600
            control.send(Resume())

    assert isinstance(events[-1], Finished)
    assert events[-1].facts["steps"] == 4


def test_a_run_that_is_stopped_while_paused_is_not_said_to_go_on(quick_request: Ask) -> None:
    control = Control()
    control.send(Pause())
    events = []
    for event in train(quick_request(steps=2), control):
        events.append(event)
        if isinstance(event, Paused):
            control.send(Stop())

    assert Resumed not in kinds(events)
    assert isinstance(events[-1], Finished)
    assert events[-1].stopped


def test_the_best_model_stays_the_best_when_an_older_checkpoint_is_taken_up(
    quick_request: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(recipe, step, rate):  # type: ignore[no-untyped-def]
        return ({"sup": float("nan")}, False) if step in (3, 4, 5) else take_step(recipe, step, rate)

    scores = iter([0.5, 0.9, 0.7, 0.7, 0.6, 0.5, 0.4, 0.3])
    monkeypatch.setattr("napari_semiseg.engine.train.take_step", breaking)
    monkeypatch.setattr("napari_semiseg.engine.train.dice_of_regions", lambda recipe: {"cell": next(scores)})
    monkeypatch.setattr("napari_semiseg.engine.train.full_tiles", lambda nuclei: 1.0)
    control = Control()
    request = quick_request(steps=8)
    for event in train(request, control):
        if isinstance(event, Validated) and event.step == 1:
            control.send(Pause())  # which saves, before the best
            control.send(Resume())
        last = event

    assert last.facts["best_step"] == 2
    assert last.facts["dice"] == 0.9
    assert max(Path(request.out).glob("checkpoints/best-*.safetensors")).stem == "best-0000002"


def test_a_run_that_goes_on_before_a_better_step_that_was_lost_reports_the_model_that_is_read(
    quick_request: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.6, 0.7, 0.8, 0.1, 0.1])
    monkeypatch.setattr("napari_semiseg.engine.train.dice_of_regions", lambda recipe: {"cell": next(scores)})
    monkeypatch.setattr("napari_semiseg.engine.train.full_tiles", lambda nuclei: 1.0)
    control, request = Control(), quick_request(steps=8)
    broken = train(request, control)
    for event in broken:
        if isinstance(event, Validated) and event.step == 1:
            control.send(Pause())  # which saves
            control.send(Resume())
        if isinstance(event, Validated) and event.step == 4:
            break
    broken.close()  # as a kill would: the steps after the checkpoint are lost

    control = Control()
    for event in train(quick_request(resume=True), control):
        if isinstance(event, Started):
            control.send(Stop())
        last = event

    assert last.facts["best_step"] == 1
    assert RunFolder(Path(request.out)).read_model()[1]["step"] == 1


@pytest.fixture
def changed_image(quick_request: Ask, small_dataset: Path) -> Path:
    """An image that became another one after a run on it had been stopped; the old one lies beside its data set."""
    control = Control()
    for event in train(quick_request(steps=6), control):
        if isinstance(event, StepDone):
            control.send(Stop())
    image = next((small_dataset / "images").iterdir())
    shutil.copy(image, small_dataset.parent / "old image")
    tifffile.imwrite(image, tifffile.imread(image)[::-1].copy(), photometric="rgb")
    return image


def test_a_run_whose_image_has_changed_asks_before_it_goes_on(quick_request: Ask, changed_image: Path) -> None:
    """Each time anew, and with nothing changed in the run."""
    request = quick_request(resume=True)
    before = {path: path.read_bytes() for path in Path(request.out).rglob("*") if path.is_file()}
    for _ in range(2):
        events = train(request)
        asked = next(events)
        with pytest.raises(InputError, match=f"{changed_image.name} has changed since this run began"):
            next(events)

        assert isinstance(asked, ImagesChanged)
        assert [Path(source).name for source in asked.sources] == [changed_image.name]
    assert {path: path.read_bytes() for path in Path(request.out).rglob("*") if path.is_file()} == before


def test_a_run_goes_on_with_a_changed_image_once_that_is_agreed_to(quick_request: Ask, changed_image: Path) -> None:
    control = Control()
    events = []
    for event in train(quick_request(resume=True, changed_images=True), control):
        events.append(event)
        if isinstance(event, StepDone):
            control.send(Stop())
    again = list(train(quick_request(resume=True)))  # what was agreed to is not asked twice

    said = [event.message for event in events if isinstance(event, Warned)]
    assert any(changed_image.name in message and "goes on with the image as it is now" in message for message in said)
    assert again[-1].facts["steps"] == 6
    assert not any("has changed" in event.message for event in again if isinstance(event, Warned))


def test_a_run_goes_on_unasked_where_the_old_image_is_put_back(
    quick_request: Ask, small_dataset: Path, changed_image: Path
) -> None:
    shutil.copy(small_dataset.parent / "old image", changed_image)

    assert list(train(quick_request(resume=True)))[-1].facts["steps"] == 6


def test_a_confidence_map_is_written_for_the_rectangle_in_focus(quick_request: Ask) -> None:
    control = Control()
    control.send(Focus(1, (0, 0, 64, 64)))
    events = list(train(quick_request(steps=21), control))

    shown = [event for event in events if isinstance(event, PreviewWritten)]
    assert shown[-1].step == 21
    assert shown[-1].image == 1
    preview = np.load(shown[-1].path, allow_pickle=False)
    assert preview.dtype == np.uint8
    assert preview.shape == (128, 128)  # small images are shown whole
    assert shown[-1].box == (0, 0, 128, 128)


@pytest.mark.parametrize(("grown", "by"), [(60, "threshold"), (1, "network")])
def test_a_running_training_proposes_the_nuclei_of_a_rectangle_by_itself_once_it_is_worth_asking(
    quick_request: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grown: int, by: str
) -> None:
    monkeypatch.setattr(train_module, "GROWN", grown)
    control = Control()
    found: list[Written] = []
    for event in train(quick_request(steps=5, labeled="3"), control):
        if isinstance(event, StepDone) and event.step == 0:
            control.send(ProposeNuclei(9, (0, 0, 8, 8), str(tmp_path / "none.npy")))
        if isinstance(event, Unanswered) and "image 9" in event.message:
            control.send(ProposeNuclei(1, (10, 20, 90, 200), str(tmp_path / "nuclei.npy")))
        found += [event] if isinstance(event, Written) else []

    (written,) = found
    labels = np.load(written.path, allow_pickle=False)
    assert written.facts["box"] == [10, 20, 90, 128]
    assert written.facts["by"] == by
    assert labels.shape == (80, 108)
    assert len(np.unique(labels[labels > 0])) == written.facts["nuclei"]


def test_validation_cells_are_judged_beside_the_threshold_and_what_is_kept_is_marked(quick_request: Ask) -> None:
    scores = [event for event in train(quick_request(steps=30)) if isinstance(event, Validated)]

    assert scores[0].best
    assert all(0 <= event.scores["dice"] <= 1 for event in scores)
    assert scores[0].scores["threshold_dice"] > 0.9  # these nuclei are purple on pink
    assert max(event.scores["dice"] for event in scores) > 0.7
    for event in scores:
        each = [score for name, score in event.scores.items() if name.startswith("dice of ")]
        assert np.mean(each) == pytest.approx(event.scores["dice"])


def test_with_fewer_than_four_cells_a_run_says_that_it_cannot_judge_itself(quick_request: Ask) -> None:
    events = list(train(quick_request(labeled="3", steps=1)))

    assert any(isinstance(event, Warned) and "cannot say how good" in event.message for event in events)


def test_steps_that_are_not_finite_are_skipped_and_the_last_good_weights_taken_up(
    quick_request: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(recipe, step, rate):  # type: ignore[no-untyped-def]
        if step in (3, 4, 5):
            for parameter in recipe.method.parameters():
                parameter.data.fill_(float("nan"))
            return {"sup": float("nan")}, False
        return take_step(recipe, step, rate)

    monkeypatch.setattr("napari_semiseg.engine.train.take_step", breaking)
    monkeypatch.setattr("napari_semiseg.engine.train.SAVE_SECONDS", 0.0)
    events = list(train(quick_request(steps=8, labeled="3")))

    assert kinds(events).count(Skipped) == 3
    assert any(isinstance(event, Warned) and "half the learning rate" in event.message for event in events)
    tensors, _ = RunFolder(Path(quick_request().out)).read_model()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def test_an_absurd_learning_rate_ends_with_a_sentence_not_with_a_broken_model(quick_request: Ask) -> None:
    request = quick_request(steps=40, labeled="3", set={"lr": 1.0, "optimizer": "sgd", "momentum": 0.99})

    with suppress(InputError):  # it may recover, or give up with a sentence
        assert isinstance(list(train(request))[-1], Finished)

    path = RunFolder(Path(request.out)).latest()
    assert path is None or all(bool(torch.isfinite(t).all()) for t in weights(request.out).values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "magic"}, "no method 'magic'"),
        ({"network": "magic"}, "no network"),
        ({"method": "csl", "network": "magic"}, "no use for --network magic"),
        ({"method": "csl", "network": "auto", "weights": "imagenet"}, "no use for --weights imagenet"),
        ({"labeled": "500"}, "hold only 12"),
        ({"labeled": "0"}, "learns from labels"),
        ({"dataset": None}, "Give images"),
        ({"split": "nope"}, "no part 'nope'"),
        ({"set": {"learning_rat": 1}}, "no option 'learning_rat'"),
        ({"set": {"lr": -1}}, "'lr'"),
        ({"set": {"crop": 72}}, "crop"),
        ({"out": ""}, "--out"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_one_sentence(quick_request: Ask, changes: dict, words: str) -> None:
    with pytest.raises(InputError) as refusal:
        next(train(quick_request(**changes)))

    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_run_without_any_label_learns_from_the_stain(quick_request: Ask) -> None:
    request = quick_request(labeled="0", method="auto", network="auto", preset="quick", steps=1)
    events = list(train(request))

    assert isinstance(events[0], Started)
    assert events[0].facts["method"] == "stain_guided"
    assert events[0].facts["labeled"] == []
    assert isinstance(events[-1], Finished)


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_csl_takes_the_crops_of_its_paper(quick_request: Ask, preset: str) -> None:
    request = quick_request(labeled="0", method="csl", network="auto", preset=preset, steps=1)
    request = request.model_copy(update={"set": {"restarts": 1, "batch_unlabeled": 1}})
    list(train(request))

    config = RunFolder(Path(request.out)).read_config()
    assert config["choices"]["sampler"]["crop"] == 300


def test_a_run_folder_is_never_written_over(quick_request: Ask) -> None:
    list(train(quick_request(steps=1)))

    with pytest.raises(InputError, match="already holds a run"):
        next(train(quick_request(steps=1)))


def test_a_variant_gives_its_run_exactly_the_options_of_that_row(quick_request: Ask) -> None:
    request = quick_request(method="crcfp", variant="table 4, scheme 1", steps=1)
    list(train(request))
    choices = json.loads((Path(request.out) / "run.json").read_text(encoding="utf-8"))["choices"]

    row = VARIANTS["crcfp"]["table 4, scheme 1"].options
    config = find_method("crcfp").Config
    own = {name: value for name, value in row.items() if name in config.model_fields}
    assert choices["options"] == config(**own).model_dump(mode="json")
    assert choices["options"]["weight_ent"] == choices["options"]["weight_cross"] == 0
    given = {**choices["sampler"], **choices["optim"], **choices["options"]}
    assert {name: given[name] for name in row} == {**row, **CROPS}, "what was set goes over it"


def test_a_variant_brings_its_network_and_its_number_of_epochs(quick_request: Ask) -> None:
    request = quick_request(method="csl", variant="table 1, patches 5", network="auto", steps=None)
    choices = prepare(request).choices

    assert (choices.network, choices.options["patches"], choices.options["patch"]) == ("csl", 5, 50)
    assert choices.steps == 300 * 2, "three images, two at a time"


def test_an_unknown_variant_is_refused_before_any_image_is_read(quick_request: Ask, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'cdcl' has no variant 'scheme 4': choose one of table 2, scheme 1; "):
        list(train(quick_request(method="cdcl", variant="scheme 4", dataset=str(tmp_path / "nowhere"))))
