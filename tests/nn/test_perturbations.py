import pytest
import torch
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.nn.perturbations import (
    Cutout,
    FeatureDrop,
    FeatureDropout,
    FeatureNoise,
    GuidedMask,
    adversarial,
    large_objects,
)


def features(seed=0, batch=2, channels=6, side=8):
    torch.manual_seed(seed)
    return torch.rand(batch, channels, side, side, dtype=torch.float64) + 0.1


def test_noise_is_relative_and_the_same_for_every_image_of_a_batch():
    f = features()
    change = FeatureNoise(0.3)(f) / f - 1

    assert 0.25 < change.abs().max() <= 0.3
    torch.testing.assert_close(change[0], change[1])
    assert len(change[0].unique()) > 300  # every activation has a draw of its own


def test_the_most_active_cells_are_dropped_by_one_share_for_all_images():
    f = features()
    torch.manual_seed(3)
    dropped = FeatureDrop(0.75, 0.9)(f)
    torch.manual_seed(3)
    gamma = 0.75 + 0.15 * torch.rand(())
    for image in range(2):
        mean = f[image].mean(0)
        for y in range(8):
            for x in range(8):
                expected = f[image, :, y, x] if mean[y, x] < gamma * mean.max() else torch.zeros(6).double()
                assert torch.equal(dropped[image, :, y, x], expected)
    assert ((dropped == 0).all(1).flatten(1).sum(1) > 0).all()


def test_an_image_without_activity_is_dropped_and_one_of_negative_activity_kept():
    zeros = torch.zeros(1, 3, 4, 4)
    negative = -torch.rand(1, 3, 4, 4) - 0.1

    assert torch.equal(FeatureDrop()(zeros), zeros)
    assert torch.equal(FeatureDrop()(negative), negative)


def test_plain_dropout_clears_activations_one_by_one_and_leaves_the_others_as_they_are():
    f = features(side=32)
    dropped = FeatureDropout(0.3)(f)
    cleared = dropped == 0

    assert cleared.double().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(dropped[~cleared], f[~cleared])
    assert not cleared.flatten(2).all(2).any()


def test_spatial_dropout_clears_channels_and_scales_the_others():
    f = features(channels=64)
    dropped = FeatureDropout(0.5, "spatial")(f)
    cleared = (dropped == 0).flatten(2).all(2)

    assert 0.25 < cleared.double().mean() < 0.75
    torch.testing.assert_close(dropped[~cleared], 2 * f[~cleared])


def two_objects():
    """A large object, a small one, and an image without any; the classes differ, which does not matter."""
    label = torch.zeros(2, 64, 64, dtype=torch.long)
    label[0, 4:34, 10:50] = 1
    label[0, 50:54, 50:54] = 2
    return label


def test_large_objects_are_those_with_a_long_border():
    assert large_objects(two_objects()) == [[Box(4, 10, 34, 50)], []]
    assert large_objects(two_objects(), least=0) == [[Box(4, 10, 34, 50), Box(50, 50, 54, 54)], []]


def test_cutout_clears_a_part_of_the_box_of_each_object_and_nothing_else():
    label, f = two_objects(), features(side=64)
    cut, seen = Cutout(0.4), set()
    for _ in range(5):
        cleared = (cut(f, large_objects(label), (64, 64)) == 0).all(1)
        rows, columns = cleared[0].any(1).nonzero(), cleared[0].any(0).nonzero()
        assert (len(rows), len(columns)) == (12, 16)
        assert cleared[0].sum() == 12 * 16
        assert 4 <= rows.min() <= rows.max() < 34
        assert 10 <= columns.min() <= columns.max() < 50
        assert not cleared[1].any()
        seen.add((int(rows.min()), int(columns.min())))
    assert len(seen) > 1


def test_masks_keep_objects_or_background_on_the_grid_of_the_features():
    label, f = two_objects(), features(side=16)
    objects, background = GuidedMask("objects")(f, label), GuidedMask("background")(f, label)

    torch.testing.assert_close(objects + background, f)
    assert torch.equal((objects[0] != 0).all(0), label[0, ::4, ::4] > 0)
    assert (objects[1] == 0).all()
    assert torch.equal(background[1], f[1])


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.layer(x)


def divergence(decoder, f, moved):
    p, q = decoder(f).log_softmax(1), decoder(moved).log_softmax(1)
    return (p.exp() * (p - q)).sum().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_moved_by_the_length_that_was_asked_for_and_further_than_at_random(dtype):
    f = features().to(dtype)
    decoder = Decoder().to(dtype)
    moved = adversarial(f, decoder, length=2.0)
    at_random = torch.randn_like(f)
    at_random = f + 2 * at_random / at_random.flatten(1).norm(dim=1)[:, None, None, None]

    torch.testing.assert_close((moved - f).flatten(1).norm(dim=1), torch.full((2,), 2.0, dtype=dtype))
    assert divergence(decoder, f, moved) > 1.5 * divergence(decoder, f, at_random)


def test_looking_for_the_direction_leaves_no_gradient_behind():
    f, decoder = features().requires_grad_(), Decoder().double()
    moved = adversarial(f, decoder)
    assert all(p.grad is None for p in decoder.parameters())
    moved.sum().backward()
    torch.testing.assert_close(f.grad, torch.ones_like(f))


def test_features_that_a_decoder_does_not_look_at_stay_where_they_are():
    decoder, f = Decoder().double(), features()
    nn.init.zeros_(decoder.layer.weight)

    assert torch.equal(adversarial(f, decoder), f)
