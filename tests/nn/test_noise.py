import torch

from napari_semiseg.nn.noise import gaussian_noise


def test_noise_has_mean_zero_and_deviation_one_in_every_channel():
    torch.manual_seed(0)
    noise = gaussian_noise(torch.zeros(4, 3, 64, 64))
    assert noise.shape == (4, 3, 64, 64)
    assert noise.mean((0, 2, 3)).abs().max() < 0.03  # 16,384 values: the mean varies by 0.008
    assert (noise.std((0, 2, 3)) - 1).abs().max() < 0.02


def test_noise_lies_in_memory_as_the_images_of_a_step_do():
    image = torch.zeros(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    assert gaussian_noise(image).stride() == image.stride()
    assert gaussian_noise(image.double()).dtype == torch.float64
