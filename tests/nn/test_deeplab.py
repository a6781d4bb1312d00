import torch
from torch import nn

from napari_semiseg.nn.deeplab import DeepLabV3Plus


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_it_is_the_network_of_the_released_code_in_size_and_rates():
    with torch.device("meta"):
        network = DeepLabV3Plus()
    assert parameters(network.encoder) == 23_508_032
    assert parameters(network.pyramid) == 15_535_104
    assert parameters(network) == 40_347_298  # 40.35 M
    rates = {c.dilation[0] for c in network.pyramid.modules() if isinstance(c, nn.Conv2d) and c.kernel_size == (3, 3)}
    assert rates == {6, 12, 18}


def test_features_are_256_channels_at_stride_4_and_the_last_stage_is_dilated():
    with torch.device("meta"):
        network = DeepLabV3Plus(classes=5)
        image = torch.zeros(2, 3, 320, 320)
        assert network.encoder(image)[-1].shape == (2, 2048, 20, 20)
        features = network.features(image)
        assert features.shape == (2, 256, 80, 80)
        assert network.classify(features).shape == (2, 5, 320, 320)


def test_the_classifier_is_dropout_and_one_convolution():
    with torch.device("meta"):
        dropout, convolution = DeepLabV3Plus().classifier
    assert dropout.p == 0.1
    assert convolution.kernel_size == (1, 1)


def test_a_batch_of_one_can_be_trained_on():
    network = DeepLabV3Plus(encoder="resnet18")
    logits = network(torch.rand(1, 3, 32, 32))
    logits.mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
