"""Open what `napari-semiseg demo` has made: the image, its confidence, and the nuclei as contours.

python examples/open_demo.py demo-result
"""

import sys
from pathlib import Path

import napari

from napari_semiseg import open_image
from napari_semiseg.blocks import Box
from napari_semiseg.io.result import Result
from napari_semiseg.plugin.confidence_layer import confidence_colormap

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-result")
    result = Result.open(folder / "immunohistochemistry.ome.zarr")
    whole = Box.whole(result.shape)

    viewer = napari.Viewer(title="napari-semiseg demo")
    viewer.add_image(open_image(folder / "immunohistochemistry.png").read(whole), name="image", rgb=True)
    confidence = viewer.add_image(result.nucleus_confidence(whole), name="confidence", contrast_limits=(0, 255))
    confidence.colormap = confidence_colormap()
    confidence.blending = "translucent"
    confidence.visible = False
    nuclei = viewer.add_labels(result.nuclei(whole), name="nuclei")
    nuclei.contour = 1
    viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")
    napari.run()
