"""Every score at once, from files and from arrays."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_semiseg import metrics
from napari_semiseg.blocks import Box
from napari_semiseg.engine.evaluate import DEFINITIONS, Pair, evaluate, score
from napari_semiseg.errors import InputError
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.postprocess.instances import split_nuclei
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.postprocess.threshold import hematoxylin_threshold


@pytest.fixture
def pairs(discs):
    """Two images: one found but for a nucleus and a shift, one found with one nucleus too many."""
    truth = [discs(9, radius=7), discs(4, radius=9)]
    first = np.roll(truth[0], 2, axis=1)
    first[first == 9] = 0
    second = truth[1].copy()
    second[50:60, 5:25] = 99
    return [Pair("one", first, truth[0]), Pair("two", second, truth[1])]


def write_result(path, labels, classes=None, *, finish=True, nuclei=True):
    names = ["nucleus"] if classes is None else ["red", "blue"]
    with ResultWriter.create(path, labels.shape, names) as writer:
        whole = Box.whole(labels.shape)
        planes = [(labels > 0) * 255] if classes is None else [(classes == 1) * 255, (classes == 2) * 255]
        writer.write_confidence(whole, np.stack(planes).astype(np.uint8))
        if nuclei:
            writer.write_nuclei(whole, labels.astype(np.uint32))
        if classes is not None or not nuclei:
            writer.write_classes(whole, (labels > 0).astype(np.uint8) if classes is None else classes)
        if finish:
            writer.finish()


def test_per_image_pooled_and_two_class_scores_are_what_their_names_say(pairs):
    tables = [metrics.confusion(pair.predicted > 0, pair.truth > 0) for pair in pairs]
    counts = [metrics.compare(pair.predicted, pair.truth) for pair in pairs]

    values = score(pairs).values

    assert list(values) == list(DEFINITIONS)
    assert values["dice"] == pytest.approx(np.mean([metrics.dice(table) for table in tables]))
    assert values["dice_pooled"] == metrics.dice(sum(tables))
    assert values["iou"] == pytest.approx(np.mean([metrics.iou(table) for table in tables]))
    assert values["mdice_two_class"] == metrics.mean_dice(sum(tables))
    assert values["miou_two_class"] == metrics.mean_iou(sum(tables))
    assert values["specificity_pooled"] == metrics.specificity(sum(tables))
    assert values["aji"] == pytest.approx(np.mean([count.aji for count in counts]))
    assert values["aji_pooled"] == (counts[0] + counts[1]).aji
    assert values["pq"] == pytest.approx(np.mean([count.pq for count in counts]))
    assert values["f1_pooled"] == (counts[0] + counts[1]).f1
    assert values["count_error"] == 1  # one too few, one too many
    assert values["count_bias"] == 0
    assert values["dice"] != values["dice_pooled"]


def test_the_table_says_every_definition_and_the_empty_cases_in_words(pairs):
    text = score(pairs).table()
    for name, words in DEFINITIONS.items():
        assert any(line.startswith(name) and line.endswith(words) for line in text.splitlines())
    assert "no nuclei and none were predicted" in text
    assert text.startswith("2 images")


def test_scores_go_through_json_also_where_there_is_no_number(discs):
    empty = np.zeros((10, 10), int)
    found = score([Pair("empty", discs(1, shape=(10, 10), radius=2), empty)])
    assert found.values["count_bias"] == np.inf
    assert found.values["dice"] == found.values["aji"] == 0
    stored = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert stored["scores"]["count_bias"] is None
    assert stored["images"][0]["name"] == "empty"
    assert set(stored["definitions"]) == set(stored["scores"])


def test_nothing_found_where_nothing_is_is_perfect():
    empty = np.zeros((10, 10), int)
    values = score([Pair("empty", empty, empty)]).values
    assert {values[name] for name in ("dice", "iou", "aji", "pq", "f1", "miou_two_class")} == {1}
    assert values["count_error"] == values["count_bias"] == 0


def test_classes_are_scored_one_by_one_and_absent_ones_left_out(discs):
    truth = discs(4, radius=9)
    true_classes = np.where(truth == 0, 0, 1 + truth % 2)
    wrong = np.where(truth == 1, 1, true_classes)
    found = score([Pair("one", truth, truth, wrong, true_classes)], ["red", "blue", "absent"])
    table = metrics.confusion(wrong, true_classes, 4)
    assert found.values["dice_red"] == metrics.class_dice(table)[1] < 1
    assert found.values["iou_background"] == 1
    assert np.isnan(found.values["dice_absent"])
    assert found.values["mdice"] == metrics.mean_dice(table)
    assert found.values["dice"] == 1
    assert "dice_blue" in found.table()


def test_results_and_labels_in_folders_are_paired_by_their_stems(pairs, tmp_path):
    for pair in pairs:
        write_result(tmp_path / "results" / f"{pair.name}.ome.zarr", pair.predicted)
        (tmp_path / "labels").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "labels" / f"{pair.name}.tif", pair.truth.astype(np.uint16))
    Image.fromarray(np.zeros((5, 5, 3), np.uint8)).save(tmp_path / "results" / "one.png")  # an export beside it
    tifffile.imwrite(tmp_path / "labels" / "three.tif", pairs[0].truth.astype(np.uint16))

    found = evaluate(tmp_path / "results", tmp_path / "labels")

    assert found.values == score(pairs).values
    assert found.notes[-1] == "1 of 3 label images have no prediction and were left out: three."


def test_two_files_that_were_named_belong_together(pairs, tmp_path):
    tifffile.imwrite(tmp_path / "mine.tif", pairs[0].predicted.astype(np.uint16))
    Image.fromarray(pairs[0].truth.astype(np.uint8)).save(tmp_path / "truth.png")
    assert evaluate(tmp_path / "mine.tif", tmp_path / "truth.png").values == score(pairs[:1]).values


def test_a_result_with_classes_is_compared_with_true_class_maps(discs, tmp_path):
    truth = discs(4, radius=9)
    kinds = np.where(truth == 0, 0, 1 + truth % 2).astype(np.uint8)
    write_result(tmp_path / "a.ome.zarr", truth, kinds)
    for name, array in (("labels", truth.astype(np.uint16)), ("classes", kinds)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", array)
    found = evaluate(tmp_path / "a.ome.zarr", tmp_path / "labels", classes=tmp_path / "classes")
    assert found.values["dice_red"] == found.values["dice_blue"] == found.values["miou"] == 1


def test_a_semantic_result_is_scored_by_its_connected_components(discs, tmp_path):
    truth = discs(4, radius=9)
    write_result(tmp_path / "a.ome.zarr", truth, nuclei=False)
    tifffile.imwrite(tmp_path / "truth.tif", truth.astype(np.uint16))
    found = evaluate(tmp_path / "a.ome.zarr", tmp_path / "truth.tif")
    assert found.values["pq"] == found.values["dice"] == 1
    assert "connected components" in found.notes[-1]


def test_what_cannot_be_compared_is_refused_in_a_sentence(pairs, tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "empty").mkdir()
    tifffile.imwrite(tmp_path / "labels" / "a.tif", np.zeros((9, 9), np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((9, 9), np.uint16))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 8), np.uint16))
    write_result(tmp_path / "half.ome.zarr", pairs[0].predicted, finish=False)
    for predicted, labels, reason in (
        ("none", "labels", "There is no prediction"),
        ("empty", "labels", "holds no prediction"),
        ("b.tif", "labels", "nothing to evaluate"),
        ("a.tif", "labels", "9 x 8 pixels and its labels have 9 x 9"),
        ("half.ome.zarr", "b.tif", "not finished"),
    ):
        with pytest.raises(InputError, match=reason):
            evaluate(tmp_path / predicted, tmp_path / labels)


def test_the_proposal_for_monuseg_training_images_profits_from_splitting(dataset):
    """The default split was chosen on this part: by AJI it must stay well above plain connected components."""
    folder = dataset("monuseg")
    plain, split = [], []
    for name in json.loads((folder / "splits.json").read_text())["train"][:2]:
        image = np.asarray(Image.open(folder / "images" / f"{name}.png").convert("RGB"))
        truth = tifffile.imread(folder / "labels" / f"{name}.tif")
        mask, confidence = propose(image)
        np.testing.assert_array_equal(mask, hematoxylin_threshold(image))
        plain.append(Pair(name, split_nuclei(confidence, strength=0), truth))
        split.append(Pair(name, split_nuclei(confidence), truth))
    assert score(split).values["aji"] > score(plain).values["aji"] + 0.1
