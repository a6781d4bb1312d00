"""Compare nuclei with the truth: every score at once, each with its definition.

Here the nuclei of the hematoxylin threshold, which needs no training, on a synthetic field whose truth is exact.
"""

import sys
import tempfile
from pathlib import Path

import tifffile

from napari_semiseg import evaluate
from napari_semiseg.postprocess.instances import split_nuclei
from napari_semiseg.postprocess.proposal import propose
from napari_semiseg.samples import synthetic_field

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
predicted, truth = out / "predicted", out / "truth"
predicted.mkdir(parents=True)
truth.mkdir()

for seed in (1, 2):
    field = synthetic_field(400, seed)
    _, confidence = propose(field.image)
    tifffile.imwrite(predicted / f"field-{seed}.tif", split_nuclei(confidence))
    tifffile.imwrite(truth / f"field-{seed}.tif", field.instances)

scores = evaluate(predicted, truth)  # files or folders; the same as `napari-semiseg evaluate predicted truth`
print(scores.table())
print("Dice of each image:", [round(image["dice"], 3) for image in scores.images])
