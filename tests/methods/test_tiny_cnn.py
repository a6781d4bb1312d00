"""The network of CSL with labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from napari_semiseg.methods._base import Task
from napari_semiseg.methods.tiny_cnn import TinyCNN, TinyCNNConfig


def test_it_has_the_weights_of_one_confidence():
    method = TinyCNN(lambda: pytest.fail("it brings its own"), Task(), TinyCNNConfig())

    assert sum(p.numel() for p in method.parameters()) == 7_345


def test_the_first_term_is_the_binary_cross_entropy_of_the_sigmoid(make_batch):
    batch = make_batch()
    torch.manual_seed(0)
    method = TinyCNN(lambda: pytest.fail("it brings its own"), Task(), TinyCNNConfig(weight_dice=0)).double().eval()
    image, label = batch.image_l.double(), batch.label_l
    nucleus = method.net.last(method.net.features(image))[:, 0]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(nucleus, label.double())

    assert set(losses := method.losses(replace(batch, image_l=image), 0)) == {"sup"}
    assert losses["sup"].item() == pytest.approx(expected.item(), abs=1e-9)


def test_one_class_found_where_labels_have_two_is_told_within_fifty_steps(make_batch):
    method = TinyCNN(lambda: pytest.fail("it brings its own"), Task(), TinyCNNConfig()).train()
    with torch.no_grad():
        method.net.last.weight.zero_()
        method.net.last.bias.fill_(-9.0)  # background everywhere, whatever it is shown
    batch, told = make_batch(size=1), []
    for step in range(52):
        with torch.no_grad():
            method.losses(batch, step)
        method.after_step(step)
        told += [(step + 1, sentence) for sentence in method.warnings()]

    [(after, sentence)] = told
    assert after == 50
    assert "no nucleus was found in labeled crops" in sentence
    assert "lower learning rate" in sentence
    assert method.counters() == {"found nuclei": 0.0}
