"""Writing a result, with its pyramids."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from napari_semiseg.blocks import Box
from napari_semiseg.io.result_writer import ResultWriter


class OmeZarr:
    number = 1
    repeat = 3

    def setup(self):
        rng = np.random.default_rng(0)
        self.confidence = rng.integers(0, 256, (1, 2048, 2048), dtype=np.uint8)
        self.nuclei = np.kron(np.arange(64 * 64, dtype=np.uint32).reshape(64, 64), np.ones((32, 32), np.uint32))
        self.folder = Path(tempfile.mkdtemp())

    def teardown(self):
        shutil.rmtree(self.folder)

    def time_write_2048(self):
        self._write()

    def peakmem_write_2048(self):
        self._write()

    def _write(self):
        target = self.folder / "a.ome.zarr"
        shutil.rmtree(target, ignore_errors=True)
        with ResultWriter.create(target, (2048, 2048), ("nucleus",), mpp=0.25) as writer:
            writer.write_confidence(Box.whole((2048, 2048)), self.confidence)
            writer.write_nuclei(Box.whole((2048, 2048)), self.nuclei)
            writer.finish()
