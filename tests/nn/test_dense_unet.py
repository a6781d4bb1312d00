import pytest
import torch
from torch import nn

from napari_semiseg.nn.dense_unet import DenseUNet


@pytest.fixture(scope="module")
def network() -> DenseUNet:
    with torch.device("meta"):
        return DenseUNet()


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def test_its_parts_have_as_many_parameters_as_the_released_code(network):
    assert parameters(network.skip, network.up) == 23_470_368
    assert parameters(network.encoder, network.skip, network.up) == 49_942_368
    assert parameters(network.classifier) == 147_778


def test_features_are_256_channels_at_stride_4(network):
    with torch.device("meta"):
        features = network.features(torch.zeros(2, 3, 320, 320))
        assert features.shape == (2, 256, 80, 80)
        assert network.classify(features).shape == (2, 2, 320, 320)


def test_every_dense_layer_drops_a_fifth_in_training(network):
    rates = [layer.drop_rate for layer in network.encoder.modules() if hasattr(layer, "drop_rate")]
    assert rates == [0.2] * (6 + 12 + 36 + 24)


def test_dropout_is_silent_when_predicting(network):
    torch.manual_seed(0)
    classifier = network.classifier.to_empty(device="cpu")
    for p in classifier.parameters():
        nn.init.normal_(p)
    classifier[2].reset_parameters()
    features = torch.rand(2, 256, 8, 8)
    classifier.train()
    assert not torch.equal(classifier(features), classifier(features))
    classifier.eval()
    assert torch.equal(classifier(features), classifier(features))
