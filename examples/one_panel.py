"""Show one panel of the dock on its own: slide, tiles, train, review or export.

    python examples/one_panel.py train

A panel is a view of the models in the `Session`. Here no engine runs: what it would say is put in by hand.
"""

import sys

import napari

from napari_semiseg.app.session import Session
from napari_semiseg.app.suggestions import Suggestions
from napari_semiseg.app.tile_proposals import TileProposals
from napari_semiseg.events import Started, StepDone, Validated
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets import export_panel, review_panel, slide_panel, tiles_panel, train_panel
from napari_semiseg.samples import immunohistochemistry

PANELS = {
    "slide": slide_panel.SlidePanel,
    "tiles": lambda *parts: tiles_panel.TilesPanel(
        *parts, TileLayers(*parts[:2]), Suggestions(parts[0]), TileProposals(parts[0]), Keys(), Strokes(parts[1])
    ),
    "train": lambda *parts: train_panel.TrainPanel(*parts, Strokes(parts[1])),
    "review": lambda *parts: review_panel.ReviewPanel(*parts, TileLayers(*parts[:2]), Keys()),
    "export": export_panel.ExportPanel,
}

if __name__ == "__main__":
    viewer = napari.Viewer()
    viewer.add_image(immunohistochemistry(), name="colon")
    session = Session()
    view = SlideView(session, viewer)
    panel = PANELS[sys.argv[1] if len(sys.argv) > 1 else "train"](session, viewer, view)
    viewer.window.add_dock_widget(panel, name="One panel")

    said = [Started("train", "run", 100), StepDone(39, {"sup": 0.2}, {}, 2.0, 30.0), Validated(40, {"dice": 0.8})]
    session.training.job = "train-1"
    for event in said:
        session.training.receive("train-1", event)
    napari.run()
