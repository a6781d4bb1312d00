"""What networks doubt and disagree about, where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.engine import doubt as doubt_module
from napari_semiseg.engine import infer
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.doubt import RESTARTS, Witness, doubt_of_runs, mean_doubt, witness_of
from napari_semiseg.engine.requests import TrainRequest
from napari_semiseg.engine.suggest import SuggestRequest, models_of, suggest
from napari_semiseg.engine.train import train
from napari_semiseg.events import Suggested, SuggestTiles
from napari_semiseg.io.images import open_image
from napari_semiseg.nn.opinions import opinions_of
from napari_semiseg.project.folder import ProjectFolder

CPU = torch.device("cpu")
SMALL = {"crop": 32, "batch_labeled": 2, "batch_unlabeled": 2}


@pytest.fixture
def project(tmp_path, discs):
    """A project with a field of dark discs and one complete tile."""
    labels = discs(8, shape=(96, 96), radius=7)
    noise = np.random.default_rng(0).normal(0, 10, (96, 96, 3))
    image = np.clip(np.where(labels[..., None] > 0, (90, 60, 140), (225, 170, 205)) + noise, 0, 255).astype(np.uint8)
    with ProjectFolder.create(tmp_path / "case") as folder:
        folder.add_array(image, "field", 0.5)
        folder.add_tile(0, (0, 0, 64, 64))
        folder.write_annotation("t0001", labels[:64, :64].astype(np.uint32), np.where(labels[:64, :64], 2, 0))
        folder.set_status("t0001", "complete")
        yield folder


def trained(project, method="mean_teacher", seed=0, control=None, **more):
    run = project.new_run_dir()
    options = {"network": "small_unet", "set": SMALL} if method == "mean_teacher" else {}
    asked = {"project": str(project.path), "out": str(run), "method": method, "steps": 2, "seed": seed, "device": "cpu"}
    return run, list(train(TrainRequest(**asked, **options | more), control))


class Says(nn.Module):
    """Says that a pixel is nucleus with a probability of its own on each half."""

    def __init__(self, left, right):
        super().__init__()
        self.left, self.right = left, right

    def forward(self, image):
        nucleus = torch.full((len(image), *image.shape[2:]), self.left)
        nucleus[..., image.shape[3] // 2 :] = self.right
        return torch.stack([1 - nucleus, nucleus], 1).log()


def test_doubt_is_what_each_opinion_doubts_and_what_they_disagree_about(project):
    image, box = open_image(project.source_path(0)), Box(0, 0, 64, 64)

    def doubt(*trainings):
        return mean_doubt([Witness(opinions_of(each), CPU, 1, 0, None) for each in trainings], image, box)

    sure, unsure = doubt([Says(0.999, 0.999)]), doubt([Says(0.5, 0.5)])
    assert (sure.entropy, unsure.entropy) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.01))
    assert sure.disagreement == unsure.disagreement == 0
    both_sure = doubt([Says(1.0, 1.0), Says(1.0, 1.0)])  # two halves of 255 are 256 when rounded
    assert both_sure.entropy == both_sure.disagreement == 0
    agreed, apart = doubt([Says(0.5, 0.5), Says(0.5, 0.5)]), doubt([Says(0.001, 0.5), Says(0.999, 0.5)])
    half = pytest.approx(0.5, abs=0.02)
    assert agreed == (pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.01), 2, half)
    assert apart == (pytest.approx(1, abs=0.01), half, 2, half)
    restarted = doubt([Says(0.001, 0.5)], [Says(0.999, 0.5)])  # two trainings of one network each
    assert restarted == (pytest.approx(apart.entropy, abs=0.01), pytest.approx(apart.disagreement, abs=0.01), 2, half)


def test_a_finished_run_is_asked_for_its_teacher_and_its_student(project):
    run, _ = trained(project)
    witness = witness_of(run, CPU)
    each = witness.probabilities(open_image(project.source_path(0)), Box(0, 0, 64, 64))

    assert each.shape == (2, 64, 64)
    assert not np.array_equal(*each)  # they have learned differently
    for path in (run / "checkpoints").glob("step-*"):
        path.unlink()
    assert len(witness_of(run, CPU).opinions.networks) == 1


def test_earlier_runs_of_the_same_kind_are_asked_too_and_what_cannot_be_read_is_passed_over(project, monkeypatch):
    old = [trained(project, seed=seed)[0] for seed in range(RESTARTS + 1)]
    trained(project, method="hematoxylin_threshold")
    newest, _ = trained(project, seed=9)
    next((old[-1] / "checkpoints").glob("best-*.safetensors")).write_bytes(b"damaged")
    asked = []
    load = doubt_module.witness_of
    monkeypatch.setattr(doubt_module, "witness_of", lambda run, device: asked.append(run) or load(run, device))
    doubt = doubt_of_runs(project, models_of(project, project.path), "cpu")

    assert asked == [newest, old[2], old[1], old[0]]  # old[2] is damaged
    found = doubt(0, Box(0, 0, 64, 64))
    assert found.opinions == 2 * (1 + RESTARTS)
    assert 0 < found.disagreement <= found.entropy <= 1


def test_the_image_of_a_file_is_asked_about_that_the_project_names(project, tmp_path):
    _, field = trained(project), open_image(project.source_path(0))
    path, blank = tmp_path / "two.ome.tif", np.full((96, 96, 3), 240, np.uint8)
    with tifffile.TiffWriter(path, ome=True) as file:
        for pixels in (blank, field.read(Box(0, 0, 96, 96))):
            file.write(pixels, photometric="rgb")
    indices = [project.add_image(path, shape=(96, 96), series=series, mpp=0.5) for series in (0, 1)]
    doubt = doubt_of_runs(project, models_of(project, project.path), "cpu")

    first, second = (doubt(index, Box(0, 0, 96, 96)) for index in indices)
    assert second == doubt(0, Box(0, 0, 96, 96))
    assert first != second


def test_an_image_is_looked_at_as_a_whole_once_for_all_its_places(project, monkeypatch):
    trained(project, "stain_guided", network="narrow_stain_unet", set=SMALL)
    looked = []
    look = infer.typical_of
    monkeypatch.setattr(infer, "typical_of", lambda image, scale: looked.append(image) or look(image, scale))
    doubt = doubt_of_runs(project, models_of(project, project.path), "cpu")
    for x0 in (0, 16, 32):
        doubt(0, Box(0, x0, 64, x0 + 64))

    assert len(looked) == 1


def test_a_run_that_is_named_is_asked_with_those_before_it_and_one_without_a_model_is_none(project):
    old, _ = trained(project)
    new, _ = trained(project)
    broken = project.new_run_dir()

    assert models_of(project, project.path) == [new, old]
    assert models_of(project, old) == [old]
    assert not any((broken / "checkpoints").glob("*"))
    (tiles,) = [e.tiles for e in suggest(SuggestRequest(source=str(project.path), side=16)) if isinstance(e, Suggested)]
    assert all("the network is" in tile["reason"] and tile["opinions"] == 4 for tile in tiles)
    plain = SuggestRequest(source=str(project.path), side=16, doubt=False)
    (tiles,) = [event.tiles for event in suggest(plain) if isinstance(event, Suggested)]
    assert not any("the network is" in tile["reason"] for tile in tiles)


def test_a_training_that_is_too_young_to_be_asked_asks_the_run_before_it(project):
    def reason():
        control = Control()
        control.send(SuggestTiles(0, 16, 1))
        return next(
            event.tiles[0]["reason"] for event in trained(project, control=control)[1] if isinstance(event, Suggested)
        )

    assert "the network is" not in reason()  # there is no run before it
    assert "the network is" in reason()


def test_a_training_suggests_places_in_all_images_even_in_one_that_was_added_since_it_began(project):
    control = Control()
    project.add_array(np.full((96, 96, 3), (190, 120, 180), np.uint8), "other")
    for index in (None, 1):
        control.send(SuggestTiles(index, 16, 40))
    everywhere, only = [event.tiles for event in trained(project, control=control)[1] if isinstance(event, Suggested)]

    assert {tile["image"] for tile in everywhere} == {0, 1}
    assert {tile["image"] for tile in only} == {1}
