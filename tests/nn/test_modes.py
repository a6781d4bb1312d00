import pytest
import torch
from torch import nn

from napari_semiseg.nn.modes import predicted


@pytest.mark.parametrize("training", [True, False])
def test_a_network_is_asked_in_eval_mode_and_is_afterwards_what_it_was(training):
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2)).train(training)
    image = torch.rand(2, 3, 4, 4)
    said = predicted(net, image)
    assert net.training == net[1].training == training
    assert net[1].num_batches_tracked == 0
    assert not said.requires_grad
    assert torch.equal(said, net.eval()(image).detach())


def test_a_network_that_fails_is_left_as_it_was():
    net = nn.Conv2d(3, 2, 1).train()
    with pytest.raises(RuntimeError):
        predicted(net, torch.rand(2, 4, 4, 4))
    assert net.training
