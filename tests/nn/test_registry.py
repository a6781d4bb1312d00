import inspect
import subprocess
import sys
from functools import cache

import pytest
import torch
from safetensors.torch import save_file

from napari_semiseg.errors import InputError
from napari_semiseg.nn._registry import NETWORKS, build_network, network_spec
from napari_semiseg.nn.network import Network


@cache
def shapeless(name: str) -> Network:
    """A network without memory for its weights: it computes shapes only."""
    with torch.device("meta"):
        return build_network(name)


def crops(name: str, count: int, height: int, width: int) -> torch.Tensor:
    """Crops as the sampler makes them for a network."""
    return torch.zeros(count, 4 if network_spec(name).takes_scale else 3, height, width, device="meta")


@pytest.mark.parametrize("name", [*NETWORKS, "unet_convnext_atto", "unet_vgg11"])
def test_every_network_keeps_the_promises_of_the_base(name):
    network = shapeless(name)
    side = max(64, network.divisor)
    features = network.features(crops(name, 2, side, 2 * side))
    logits = network.logits_on_grid(features)
    grid = (side // network.stride, 2 * side // network.stride)
    assert features.shape == (2, network.feature_channels, *grid)
    assert logits.shape == (2, 2, *grid)
    assert network.classify(features).shape == (2, 2, side, 2 * side)
    assert (network.reach is not None) == network_spec(name).finite_reach
    assert network.notes == ()


@pytest.mark.parametrize("name", [*NETWORKS, "unet_convnext_atto"])
def test_any_multiple_of_the_divisor_will_do(name):
    network = shapeless(name)
    side = network.divisor * (1 if network.divisor > 1 else 7)
    assert network(crops(name, 2, side, 3 * side)).shape == (2, 2, side, 3 * side)


@pytest.mark.parametrize("name", ["small_unet", "unet_resnet34", "deeplab_resnet50", "dense_unet161"])
def test_there_are_as_many_logits_as_classes(name):
    with torch.device("meta"):
        assert build_network(name, 5)(torch.zeros(2, 3, 64, 64)).shape == (2, 5, 64, 64)


def test_the_stain_reaches_the_network_that_takes_it():
    assert build_network("small_unet", stain="intensity").stain_input.stain == "intensity"


def test_the_same_seed_gives_the_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return build_network("small_unet").state_dict()["classifier.weight"]

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "resnet"}, "There is no network 'resnet'"),
        ({"name": "unet_"}, "There is no network 'unet_'"),
        ({"name": "unet_nothing50"}, "There is no encoder 'nothing50'"),
        ({"name": "small_unet", "classes": 1}, "2 to 255"),
        ({"name": "small_unet", "classes": 10**9}, "2 to 255"),
        ({"name": "csl", "classes": 3}, "not 3 classes"),
        ({"name": "small_unet", "stain": "sepia"}, "cannot be shown 'sepia'"),
        ({"name": "small_unet", "weights": "imagenet"}, "no ImageNet weights"),
        ({"name": "small_unet", "weights": "weights.pth"}, "can run a program"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        build_network(**arguments)


def test_an_encoder_that_takes_one_size_only_is_refused():
    with pytest.raises(InputError, match="No network can be built on the encoder 'vit_tiny_patch16_224'"):
        build_network("unet_vit_tiny_patch16_224")


def test_a_file_of_weights_fills_the_network(tmp_path):
    one = build_network("small_unet")
    save_file(one.state_dict(), tmp_path / "one.safetensors")
    other = build_network("small_unet", weights=str(tmp_path / "one.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_file_of_an_encoder_fills_the_encoder_and_its_head_is_left_alone(tmp_path):
    one = build_network("unet_resnet18")
    stored = one.encoder.state_dict() | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    save_file(stored, tmp_path / "resnet18.safetensors")
    other = build_network("unet_resnet18", weights=str(tmp_path / "resnet18.safetensors"))
    assert torch.equal(one.encoder.conv1.weight, other.encoder.conv1.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_a_file_of_an_encoder_of_timm_fills_the_encoder(tmp_path):
    one = build_network("unet_resnet10t")
    save_file(one.encoder.model.state_dict(), tmp_path / "resnet10t.safetensors")
    other = build_network("unet_resnet10t", weights=str(tmp_path / "resnet10t.safetensors"))
    assert torch.equal(one.encoder.model.layer1[0].conv1.weight, other.encoder.model.layer1[0].conv1.weight)


def test_deviations_are_whole_sentences():
    sentences = [sentence for spec in NETWORKS.values() for sentence in spec.deviations]
    assert sentences
    assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in sentences)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_the_small_network_is_built_without_the_libraries_of_the_large_ones():
    program = inspect.cleandoc("""
        import sys
        from napari_semiseg.nn._registry import build_network
        build_network("small_unet")
        assert not {"timm", "segmentation_models_pytorch", "torchvision"} & set(sys.modules)
    """)
    subprocess.run([sys.executable, "-c", program], check=True)
