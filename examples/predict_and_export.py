"""Segment an image with a trained run, and export masks, a table and a picture.

    python examples/predict_and_export.py OUT [RUN IMAGE]

Without a run one is trained for a few steps on a synthetic field.
"""

import sys
import tempfile
from pathlib import Path

from napari_semiseg import ExportRequest, PredictRequest, TrainRequest, export, predict, train
from napari_semiseg.events import Written
from napari_semiseg.synthetic import SyntheticSlide

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
run, image = sys.argv[2:4] if len(sys.argv) > 3 else (str(out / "run"), str(out / "field.ome.tif"))

if not Path(run).exists():
    slide = SyntheticSlide((256, 256), seed=3)
    slide.write(image)
    (out / "labels").mkdir()
    slide.write_labels(out / "labels" / "field.tif")
    labels, small = str(out / "labels"), {"crop": 64, "batch_labeled": 2}
    list(train(TrainRequest(images=[image], labels=labels, out=run, method="supervised", steps=8, set=small)))

for result in predict(PredictRequest(run=run, images=[image], out=str(out))):
    if not isinstance(result, Written):  # one .ome.zarr for each image
        continue
    print(f"{result.path}: {result.facts['nuclei']} nuclei")
    for form in ("tiff", "csv", "png"):
        for event in export(ExportRequest(source=result.path, to=form, out=str(out))):
            if isinstance(event, Written):
                print(event.what, event.path)
