"""Put the pictures that `take_screenshots.py` and `labeling_flow.py` have taken into `docs/images/`, made small.

.ci/with-display python docs/scripts/take_screenshots.py SHOTS
.ci/with-display python docs/scripts/labeling_flow.py SHOTS
python docs/scripts/place_screenshots.py SHOTS
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "images"
NAMES = {
    "1-slide": "slide",
    "2-tiles": "tiles",
    "2-correct": "correct",
    "2-suggested": "suggested",
    "3-training": "dock",
    "4-review": "review",
    "4-growing": "growing",
    "5-export": "export",
    "flow-4-taken-up": "table",
    "flow-5-review": "doubt",
    "flow-6-compared": "compared",
    "flow-8-history": "history",
}
WIDTH = 1200
COLORS = 255

if __name__ == "__main__":
    shots = Path(sys.argv[1])
    for taken, name in ((taken, name) for taken, name in NAMES.items() if (shots / f"{taken}.png").is_file()):
        picture = Image.open(shots / f"{taken}.png").convert("RGB")
        picture = picture.resize((WIDTH, round(WIDTH * picture.height / picture.width)), Image.Resampling.LANCZOS)
        picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(
            IMAGES / f"{name}.png", optimize=True
        )
