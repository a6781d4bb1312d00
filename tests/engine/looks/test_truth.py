"""What is compared with labels: agreement and confusion density."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from napari_semiseg.data.batch import IGNORE
from napari_semiseg.engine.looks import Seen
from napari_semiseg.engine.looks.agreement import agreement
from napari_semiseg.engine.looks.confusion import confusion_density
from napari_semiseg.engine.pictures import GREEN, RED, YELLOW
from napari_semiseg.errors import InputError


class Fixed(nn.Module):
    """Answers with given probabilities, (classes, H, W)."""

    def __init__(self, probs):
        super().__init__()
        self.probs = torch.tensor(probs, dtype=torch.float64)

    def forward(self, image):
        return self.probs.log()[None]


def seen(nucleus, truth):
    nucleus = np.array(nucleus, float)
    network = Fixed(np.stack([1 - nucleus, nucleus]))
    truth = None if truth is None else np.array(truth, np.uint8)
    return Seen(SimpleNamespace(predictor=lambda: network), torch.zeros(1, 3, *nucleus.shape), truth)


def test_agreement_is_yellow_what_only_the_prediction_has_green_and_what_only_the_labels_have_red():
    found = agreement(seen([[0.9, 0.9, 0.1], [0.1, 0.9, 0.9]], [[1, 0, 1], [0, IGNORE, 1]]))
    kinds = found.maps["agreement"]

    assert kinds.values.tolist() == [[1, 2, 3], [0, 0, 1]]
    assert [kinds.meanings[kind].color for kind in (1, 2, 3)] == [YELLOW, GREEN, RED]
    assert "only" in kinds.meanings[2].words
    assert "prediction" in kinds.meanings[2].words
    assert found.numbers["Dice"] == pytest.approx(2 * 2 / (3 + 3))


def test_confusion_density_is_what_other_classes_are_given():
    found = confusion_density(seen([[0.9, 0.3], [0.2, 0.5]], [[1, 1], [0, IGNORE]]))

    assert found.maps["confusion density"].values[:1] == pytest.approx(np.array([[0.1, 0.7]]), rel=1e-5)
    assert np.isnan(found.maps["confusion density"].values[1, 1])
    assert found.numbers["confusion density"] == pytest.approx((0.1 + 0.7 + 0.2) / 3, rel=1e-5)
    assert found.numbers["confusion density of background"] == pytest.approx(0.2, rel=1e-5)
    assert found.numbers["confusion density of nuclei"] == pytest.approx(0.4, rel=1e-5)


@pytest.mark.parametrize("truth", [None, [[IGNORE, IGNORE]]])
@pytest.mark.parametrize("look", [agreement, confusion_density])
def test_without_a_label_there_is_nothing_to_compare_with(look, truth):
    with pytest.raises(InputError, match="No label lies in this rectangle"):
        look(seen([[0.5, 0.5]], truth))
