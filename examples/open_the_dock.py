"""Open napari on a real tissue image, with the dock "Nuclei" beside it.

In napari itself: Plugins → Nuclei from few labels → Nuclei.
"""

import napari

from napari_semiseg.samples import immunohistochemistry

if __name__ == "__main__":
    viewer = napari.Viewer()
    viewer.add_image(immunohistochemistry(), name="colon")
    viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")
    napari.run()
