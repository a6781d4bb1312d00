"""From confidence to nuclei: the dock wants this within 200 ms for 1000 x 1000."""

import numpy as np

from napari_semiseg.postprocess.instances import split_nuclei
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.synthetic import synthetic_field


class Nuclei:
    def setup(self):
        self.image = synthetic_field(1000, seed=0).image
        _, self.confidence = propose(self.image, gray=False)
        assert self.confidence.dtype == np.uint8

    def time_split_1000(self):
        split_nuclei(self.confidence)

    def time_propose_1000(self):
        propose(self.image, gray=False)

    def peakmem_split_1000(self):
        split_nuclei(self.confidence)
