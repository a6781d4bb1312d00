"""Losses with their gradients, on one thread."""

import torch

from napari_semiseg.losses.cross_entropy import cross_entropy
from napari_semiseg.losses.dice import soft_dice


class Supervised:
    def setup(self):
        torch.set_num_threads(1)
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(8, 2, 160, 160, generator=generator, requires_grad=True)
        self.label = torch.randint(0, 2, (8, 160, 160), generator=generator)

    def time_cross_entropy(self):
        cross_entropy(self.logits, self.label).backward()

    def time_soft_dice(self):
        soft_dice(self.logits, self.label).backward()
