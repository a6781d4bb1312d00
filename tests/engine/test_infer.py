"""Blockwise confidence, against the network applied to the whole image at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.engine.infer import confidence_map
from napari_semiseg.nn.unet import SmallUNet

CPU = torch.device("cpu")


class Reflected:
    """An image in memory that goes on beyond its border as its mirror image."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.shape = pixels.shape[:2]
        self.reads = []

    def read(self, box):
        self.reads.append(box)
        rows, columns = (_mirrored(np.arange(*span), n) for span, n in zip(_spans(box), self.shape, strict=True))
        return self.pixels[np.ix_(rows, columns)]


def _spans(box):
    return (box.y0, box.y1), (box.x0, box.x1)


def _mirrored(index, n):
    if n == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * n - 2)
    return np.where(index < n, index, 2 * n - 2 - index)


class Strided(nn.Module):
    """Reach 9 and stride 4: what it answers depends on where its grid lies, and zeros are padded at every edge."""

    divisor, reach = 4, 9

    def __init__(self, classes=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Upsample(scale_factor=4),
            nn.Conv2d(8, classes, 11, padding=5),
        )

    def forward(self, image):
        return self.layers(image)


def strided(classes=3):
    torch.manual_seed(1)
    network = Strided(classes)
    network(torch.rand(4, 3, 64, 64))  # gives the batch norm something to remember
    return network


def picture(height, width, seed=0):
    return Reflected(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def whole(network, image):
    """Predict the image with a wide mirror margin in one piece."""
    margin = 64
    height, width = (-(-n // 16) * 16 for n in image.shape)
    pixels = image.read(Box(-margin, -margin, height + margin, width + margin))
    with torch.inference_mode():
        probs = network.eval()(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255).softmax(1)[0, 1:]
    inside = probs[:, margin : margin + image.shape[0], margin : margin + image.shape[1]]
    return (inside * 255).round().to(torch.uint8).numpy()


def differ(a, b):
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(4, 40), st.data())
def test_any_block_size_and_any_box_give_what_the_whole_image_gives(height, width, block, data):
    network, image = strided(), picture(height, width)
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width)))

    found = confidence_map(network, image, box, device=CPU, divisor=4, reach=9, block=block)

    assert found.shape == (2, *box.shape)
    assert differ(found, whole(network, image)[:, *box.slices]) <= 1


def test_the_small_unet_does_not_depend_on_blocks():
    torch.manual_seed(0)
    network, image = SmallUNet(2), picture(150, 170)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one batch says it all
    network.train()(torch.rand(2, 3, 64, 64))
    found = [
        confidence_map(
            network, image, Box.whole(image.shape), device=CPU, divisor=network.divisor, reach=network.reach, block=size
        )
        for size in (64, 512)
    ]
    assert found[0].std() > 1  # there is something to compare
    assert differ(*found) <= 1


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 7), st.integers(4, 30), st.integers(0, 9), st.integers(0, 9))
def test_a_downsampled_map_is_every_nth_pixel_of_the_full_one(step, block, y0, x0):
    network, image, box = strided(), picture(40, 50), Box(y0, x0, 37, 48)
    full = confidence_map(network, image, box, device=CPU, divisor=4, reach=9, block=block)
    thin = confidence_map(network, image, box, device=CPU, divisor=4, reach=9, block=block, downsample=step)
    np.testing.assert_array_equal(thin, full[:, ::step, ::step])


@pytest.mark.parametrize("scale", [0.5, 0.7, 2.0])
def test_at_another_pixel_size_blocks_still_make_no_difference(scale):
    network, image = strided(), picture(60, 50)
    whole_box, part = Box(0, 0, 60, 50), Box(13, 7, 41, 44)
    settings = {"device": CPU, "divisor": 4, "reach": 9, "scale": scale}
    full = confidence_map(network, image, whole_box, block=512, **settings)
    blocks = confidence_map(network, image, whole_box, block=16, **settings)
    piece = confidence_map(network, image, part, block=24, **settings)
    assert full.shape == (2, 60, 50)
    assert differ(full, blocks) <= 1
    assert differ(full[:, *part.slices], piece) <= 1


def test_every_module_is_left_in_the_mode_it_was_in():
    network = strided().train()
    network.layers[1].eval()
    image = picture(20, 20)
    before = {name: value.clone() for name, value in network.state_dict().items()}

    confidence_map(network, image, Box(0, 0, 20, 20), device=CPU, divisor=4, reach=9)

    assert network.training
    assert network.layers[0].training
    assert not network.layers[1].training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_two_classes_give_the_probability_of_not_being_background():
    class Fixed(nn.Module):
        def forward(self, image):
            logit = torch.full_like(image[:, :1], 0.7 / 0.3).log()
            return torch.cat([torch.zeros_like(logit), logit], dim=1)

    found = confidence_map(Fixed(), picture(9, 9), Box(0, 0, 9, 9), device=CPU, divisor=1, reach=0)
    np.testing.assert_array_equal(found, np.full((1, 9, 9), round(0.7 * 255)))


def test_a_network_of_unbounded_reach_reads_64_pixels_more():
    image = picture(30, 30)
    confidence_map(strided(), image, Box(0, 0, 8, 8), device=CPU, divisor=4, reach=None, block=8)
    assert image.reads == [Box(-64, -64, 72, 72)]


def test_values_that_are_not_finite_are_never_shown():
    class Broken(nn.Module):
        def forward(self, image):
            return image[:, :2] * float("nan")

    with pytest.raises(FloatingPointError, match="not finite"):
        confidence_map(Broken(), picture(9, 9), Box(0, 0, 9, 9), device=CPU, divisor=1, reach=0)


class Hungry(Strided):
    """Has memory for so many pixels at once."""

    def __init__(self, room):
        super().__init__()
        self.room, self.shown = room, []

    def forward(self, image):
        pixels = image.shape[0] * image.shape[2] * image.shape[3]
        if pixels > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.shown.append(tuple(image.shape))
        return super().forward(image)


def mapped(network, image, block):
    return confidence_map(network, image, Box(0, 0, 128, 128), device=CPU, divisor=4, reach=9, block=block)


def test_where_memory_is_short_blocks_go_one_by_one_before_they_are_halved():
    torch.manual_seed(1)
    network, image = Hungry(100 * 100), picture(128, 128)
    network.load_state_dict(strided().state_dict())
    wanted = mapped(strided(), image, 64)
    found = mapped(network, image, 64)

    assert {shape[0] for shape in network.shown} == {1}  # four blocks of 88 do not fit at once, one does
    assert np.abs(found.astype(int) - wanted).max() <= 1

    network.shown.clear()
    halved = mapped(network, image, 128)
    assert {shape[2] for shape in network.shown} == {88}
    assert np.abs(halved.astype(int) - wanted).max() <= 1


def test_without_memory_for_the_smallest_block_it_says_so_in_torchs_own_words():
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        mapped(Hungry(10), picture(128, 128), 128)
