import pytest
import torch

from napari_semiseg.nn.confidence import ConfidenceNetwork


@pytest.mark.parametrize(("channels", "parameters"), [(4, 7_372), (1, 7_345)])
def test_it_has_as_many_parameters_as_the_released_code(channels, parameters):
    assert sum(p.numel() for p in ConfidenceNetwork(channels).parameters()) == parameters


def test_its_receptive_field_is_167_pixels_wide(open_up, furthest_changes):
    network = open_up(ConfidenceNetwork())
    assert furthest_changes(network, 1, 200, 8) == 83
    assert 2 * network.reach + 1 == 167


def test_the_softmax_of_the_logits_is_the_chosen_confidence():
    torch.manual_seed(0)
    network = ConfidenceNetwork().eval()
    image = torch.rand(2, 3, 9, 11)
    confidences = network.confidences(image)
    assert confidences.shape == (2, 4, 9, 11)
    for channel in range(4):
        network.choose(channel)
        torch.testing.assert_close(network(image).softmax(1)[:, 1], confidences[:, channel])


def test_the_choice_travels_with_the_weights():
    network, loaded = ConfidenceNetwork().eval(), ConfidenceNetwork().eval()
    network.choose(2)
    loaded.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(loaded(image).softmax(1)[:, 1], network.confidences(image)[:, 2])


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no channel 4"):
        ConfidenceNetwork().choose(4)


def test_images_are_scaled_before_the_first_convolution():
    network = ConfidenceNetwork()
    torch.testing.assert_close(network.scaled(torch.tensor([0.0, 1.0])), torch.tensor([0.05, 1.0]))
    seen = []
    network.first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.features(torch.zeros(1, 3, 4, 4))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 4, 4), 0.05))
