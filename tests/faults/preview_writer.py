"""Writes one confidence map over the other, each of one value, as fast as it can: python preview_writer.py FILE."""

import sys

import numpy as np

from napari_semiseg.engine.npy import write_npy

for number in range(10**9):
    write_npy(sys.argv[1], np.full((512, 512), number % 256, np.uint8))
    if number == 0:
        sys.stdout.write("writing\n")
        sys.stdout.flush()
