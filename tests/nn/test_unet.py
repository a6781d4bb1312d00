import torch
import torch.nn.functional as F

from napari_semiseg.nn.unet import SmallUNet


def test_a_pixel_is_felt_as_far_as_the_reach_and_no_further(open_up, furthest_changes):
    network = SmallUNet()
    length = 2 * (network.reach // 16 + 3) * 16
    assert furthest_changes(open_up(network), 16, length, 16) == network.reach
    assert furthest_changes(network, 16, length, 16, rows=True) == network.reach


def test_with_ordinary_weights_nothing_outside_the_reach_changes(furthest_changes):
    torch.manual_seed(0)
    network = SmallUNet().double().eval()
    length = 2 * (network.reach // 16 + 3) * 16
    assert 0 < furthest_changes(network, 16, length, 16) <= network.reach


@torch.no_grad()
def test_blocks_with_a_halo_predict_what_the_whole_image_predicts():
    torch.manual_seed(0)
    network = SmallUNet(classes=3).double().eval()
    halo = -(-network.reach // network.divisor) * network.divisor
    image = F.pad(torch.rand(1, 3, 64, 64, dtype=torch.float64), [halo // 2] * 4, mode="reflect")
    image = F.pad(image, [halo - halo // 2] * 4, mode="reflect")
    whole = network(image)[..., halo:-halo, halo:-halo]

    blocks = torch.zeros_like(whole)
    for y in range(0, 64, 32):
        for x in range(0, 64, 32):
            read = image[..., y : y + 32 + 2 * halo, x : x + 32 + 2 * halo]
            blocks[..., y : y + 32, x : x + 32] = network(read)[..., halo:-halo, halo:-halo]
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-12)


def test_features_lie_on_the_promised_grid_and_logits_on_the_images():
    network = SmallUNet(classes=5)
    image = torch.rand(2, 3, 32, 48)
    features = network.features(image)
    assert features.shape == (2, network.feature_channels, 32 // network.stride, 48 // network.stride)
    assert network.logits_on_grid(features).shape == (2, 5, 16, 24)
    assert network(image).shape == (2, 5, 32, 48)


def test_what_one_image_is_predicted_to_be_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    network = SmallUNet().double().eval()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=0, atol=1e-12)


def test_it_learns_a_blue_disc_in_a_few_steps():
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    label = (((y - 20) ** 2 + (x - 26) ** 2) < 120).long()[None]
    image = torch.where(label[:, None] == 1, torch.tensor([0.4, 0.3, 0.6]).view(1, 3, 1, 1), torch.tensor(0.8))
    image = (image + 0.05 * torch.randn(1, 3, 48, 48)).clamp(0, 1)
    network = SmallUNet()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(network(image), label).backward()
        optimizer.step()
    predicted = network(image).argmax(1)
    dice = 2 * (predicted * label).sum() / (predicted.sum() + label.sum())
    assert dice > 0.9


def test_weights_save_and_load():
    one, other = SmallUNet(stain="intensity").eval(), SmallUNet().eval()
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(one(image), other(image))
