"""Train without a single label, from what the stain says, and look at the confidence map.

A real training takes minutes; the few steps here only show that it works.
"""

import sys
import tempfile
from pathlib import Path

from napari_semiseg import PredictRequest, TrainRequest, predict, train
from napari_semiseg.blocks import Box
from napari_semiseg.io.overlay import write_png
from napari_semiseg.io.result import Result
from napari_semiseg.samples import immunohistochemistry

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
write_png(out / "colon.png", immunohistochemistry())

small = {"crop": 128, "batch_unlabeled": 2}  # leave this out for a real training
for event in train(TrainRequest(images=[str(out / "colon.png")], out=str(out / "run"), steps=8, set=small)):
    print(event)

list(predict(PredictRequest(run=str(out / "run"), images=[str(out / "colon.png")], out=str(out))))
result = Result.open(out / "colon.ome.zarr")
confidence = result.nucleus_confidence(Box.whole(result.shape))  # uint8: 255 is certainly nucleus
write_png(out / "confidence.png", confidence)
print(f"Mean confidence {confidence.mean() / 255:.2f}; the map is {out / 'confidence.png'}")
