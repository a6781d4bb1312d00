import pytest
import torch

from napari_semiseg.nn.pixel_shuffle import PixelShuffleDecoder


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_it_brings_features_to_the_size_of_the_input(stride):
    logits = PixelShuffleDecoder(16, 3, stride)(torch.randn(2, 16, 5, 6))
    assert logits.shape == (2, 3, 5 * stride, 6 * stride)


def test_fresh_stages_repeat_pixels_and_are_never_negative():
    logits = PixelShuffleDecoder(16, 3, 4)(torch.randn(2, 16, 5, 6))
    corners = logits[..., ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)

    torch.testing.assert_close(logits, corners)
    assert logits.min() == 0


def test_without_a_stage_it_is_one_convolution():
    decoder = PixelShuffleDecoder(16, 3, 1)
    assert sum(p.numel() for p in decoder.parameters()) == 48
    assert decoder(torch.randn(1, 16, 4, 4)).min() < 0


def test_a_stride_that_is_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match="no power of 2"):
        PixelShuffleDecoder(16, 3, 6)
