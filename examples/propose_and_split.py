"""Nuclei before any training, and the same confidence split again with other sliders. Neither needs torch."""

import sys
import tempfile
from pathlib import Path

from napari_semiseg.engine.propose import ProposeRequest, propose
from napari_semiseg.engine.split import SplitRequest, split
from napari_semiseg.events import Written
from napari_semiseg.synthetic import SyntheticSlide

out = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
slide = SyntheticSlide((400, 400), seed=3)
slide.write(out / "field.ome.tif")

for event in propose(ProposeRequest(image=str(out / "field.ome.tif"), out=str(out))):
    if isinstance(event, Written):
        print(event.what, event.facts)

for strength in (0.0, 0.5, 1.0):
    request = SplitRequest(
        source=str(out / "confidence.npy"), out=str(out / "split.npy"), strength=strength, mpp=slide.mpp
    )
    for event in split(request):
        if isinstance(event, Written):
            print(f"Split strength {strength}: {event.facts['nuclei']} nuclei")
