"""Drawing the batch of one step, on one thread."""

import numpy as np
import torch

from napari_semiseg.blocks import Box
from napari_semiseg.data.batch import Views
from napari_semiseg.data.sampler import Sampler, SamplerConfig
from napari_semiseg.data.sources import LabeledRegion, TrainingData
from napari_semiseg.io.images import from_array
from napari_semiseg.synthetic import synthetic_field


class Batch:
    params = ([160, 320],)
    param_names = ("crop",)

    def setup(self, crop):
        torch.set_num_threads(1)
        field = synthetic_field(1000, seed=0)
        label = (field.instances[:250, :250] > 0).astype(np.uint8)
        data = TrainingData([from_array(field.image, "field")], [LabeledRegion("a", 0, Box(0, 0, 250, 250), label, 9)])
        config = SamplerConfig(crop=crop)
        self.labeled = Sampler(data, Views(), config, seed=0)
        self.both = Sampler(data, Views(weak=True, strong=1), config, seed=0)
        self.pairs = Sampler(data, Views(pairs=(0.1, 1.0), whole=True), config, seed=0)

    def time_labeled(self, crop):
        self.labeled.batch(3)

    def time_labeled_weak_and_strong(self, crop):
        self.both.batch(3)

    def time_labeled_pairs_and_whole(self, crop):
        self.pairs.batch(3)
