import numpy as np
import pytest
import torch
from skimage.color import rgb2hed
from skimage.data import immunohistochemistry

from napari_semiseg.nn.stain import STAINS, StainInput, hematoxylin


def tissue() -> torch.Tensor:
    """(1, 3, 512, 512), float64, in [0, 1]."""
    return torch.from_numpy(immunohistochemistry()).permute(2, 0, 1)[None].double() / 255


def test_hematoxylin_is_that_of_scikit_image():
    image = tissue()
    expected = rgb2hed(image[0].permute(1, 2, 0).numpy())[..., 0]
    np.testing.assert_allclose(hematoxylin(image)[0, 0].clamp_min(0).numpy(), expected, atol=1e-12)


def test_nuclei_hold_more_hematoxylin_than_stroma_and_glass_holds_none():
    blue, pink, white = torch.tensor([[0.35, 0.25, 0.55], [0.9, 0.6, 0.75], [1.0, 1.0, 1.0]]).view(3, 3, 1, 1)
    densities = hematoxylin(torch.stack([blue, pink, white])).flatten()
    assert densities[0] > 0.05 > densities[1]
    assert densities[2] == 0


def test_black_and_white_pixels_have_finite_values_and_gradients():
    image = torch.tensor([0.0, 1e-9, 1.0]).repeat(3, 1).view(1, 3, 1, 3).requires_grad_()
    shown = StainInput()(image)
    shown.sum().backward()
    assert shown.isfinite().all()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_a_gradient_reaches_the_image_through_the_stain_channel():
    image = tissue().requires_grad_()
    StainInput().double()(image)[:, 3].sum().backward()
    assert image.grad is not None
    assert (image.grad[0, 0] != 0).float().mean() > 0.9


def test_tissue_is_shown_with_a_spread_of_about_one():
    shown = StainInput()(tissue().float())
    assert shown.shape == (1, 4, 512, 512)
    assert shown.mean((0, 2, 3)).abs().max() < 1.2
    assert shown.std((0, 2, 3)).min() > 0.3
    assert shown.std((0, 2, 3)).max() < 1.5


def test_without_a_stain_the_fourth_channel_is_intensity_of_the_chosen_polarity():
    image = torch.linspace(0, 1, 5).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    bright, dark = (StainInput(mode)(image)[0, 3, 0] for mode in ("intensity", "inverted"))
    assert (bright.diff() > 0).all()
    torch.testing.assert_close(bright, -dark)


@pytest.mark.parametrize("stain", STAINS)
def test_the_choice_of_stain_travels_with_the_weights(stain):
    loaded = StainInput()
    loaded.load_state_dict(StainInput(stain).state_dict())
    assert loaded.stain == stain
