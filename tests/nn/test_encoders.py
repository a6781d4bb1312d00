import pickle
import urllib.error
import urllib.request
from pathlib import Path

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file

from napari_semiseg.errors import InputError
from napari_semiseg.nn._registry import build_network
from napari_semiseg.nn.encoders import build_encoder

RESNET = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache, and a hub that cannot be reached."""

    def unreachable(*arguments, **options):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cache(hub, repository: str, revision: str):
    """The folder of one revision in the cache, as the hub's client lays it out."""
    root = hub / f"models--{repository.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(revision)
    folder = root / "snapshots" / revision
    folder.mkdir(parents=True)
    return folder


def test_without_network_training_starts_from_scratch_and_the_user_is_told():
    network = build_network("unet_resnet18", weights="imagenet")
    (note,) = network.notes
    assert note.startswith("The ImageNet weights of resnet18 could not be fetched")
    assert ".safetensors" in note
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 2, 32, 32)


def test_an_encoder_in_the_cache_is_loaded_without_network(hub):
    stored = smp.encoders.get_encoder("resnet18", weights=None).state_dict()
    folder = cache(hub, RESNET["repo_id"], RESNET["revision"])
    (folder / "config.json").write_text("{}")
    save_file(
        stored | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, folder / "model.safetensors"
    )
    built = build_encoder("resnet18", pretrained=True)
    assert built.notes == ()
    assert torch.equal(built.module.layer1[0].conv1.weight, stored["layer1.0.conv1.weight"])


def test_an_encoder_of_timm_in_the_cache_is_loaded_without_network(hub):
    trained = timm.create_model("resnet10t")
    folder = cache(hub, timm.models.get_pretrained_cfg("resnet10t").hf_hub_id, "a" * 40)
    save_file(trained.state_dict(), folder / "model.safetensors")
    built = build_encoder("resnet10t", pretrained=True)
    assert built.notes == ()
    assert torch.equal(built.module.model.layer1[0].conv1.weight, trained.layer1[0].conv1.weight)


def test_a_pickle_in_the_cache_is_not_opened(hub, tmp_path):
    class Canary:
        def __reduce__(self):
            return Path.touch, (tmp_path / "canary",)

    folder = cache(hub, timm.models.get_pretrained_cfg("resnet10t").hf_hub_id, "a" * 40)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))
    built = build_encoder("resnet10t", pretrained=True)
    assert len(built.notes) == 1
    assert not (tmp_path / "canary").exists()


def test_a_damaged_file_in_the_cache_is_said_and_not_used(hub):
    folder = cache(hub, RESNET["repo_id"], RESNET["revision"])
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"not a header")
    assert len(build_encoder("resnet18", pretrained=True).notes) == 1


def test_looking_into_the_cache_only_leaves_the_hubs_client_as_it_was():
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    build_encoder("resnet18", pretrained=True)
    assert before == huggingface_hub.constants.HF_HUB_OFFLINE


def test_colors_are_standardized_as_the_encoder_was_trained_with():
    assert build_encoder("resnet18").color.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    mean = timm.models.get_pretrained_cfg("mobilevit_xxs").mean
    assert mean != pytest.approx([0.485, 0.456, 0.406])
    assert build_encoder("mobilevit_xxs").color.mean.flatten().tolist() == pytest.approx(mean)


def test_features_have_the_channels_that_are_promised():
    built = build_encoder("convnext_atto")
    features = built.module(torch.zeros(1, 3, 64, 64))
    assert tuple(f.shape[1] for f in features) == built.channels


def test_an_encoder_that_cannot_be_dilated_is_refused():
    with pytest.raises(InputError, match="densenet121"):
        build_encoder("densenet121", output_stride=16)
