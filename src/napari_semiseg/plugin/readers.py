"""What *File ▸ Open* does with slides and with our project folders. Every other file is left to those who know it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_info, show_warning

from napari_semiseg import atomic
from napari_semiseg.errors import InputError
from napari_semiseg.io.images import open_image
from napari_semiseg.plugin.picture_layer import picture_layer
from napari_semiseg.project.opening import PROJECT_FILE

LayerData = tuple[Any, ...]
_WHOLE = 4_000_000  # pixels that may be read while the window waits
_NOTHING: list[LayerData] = [(None,)]  # napari's word for: there is nothing more to add


def slide_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return what reads slides, each as one multiscale layer that is read where it is looked at."""
    paths = [path] if isinstance(path, str) else path
    return _read_slides if all(Path(one).is_file() for one in paths) else None


def project_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return what opens a project in the dock; None if the folder holds none."""
    if isinstance(path, list):
        if len(path) != 1:
            return None
        path = path[0]
    return _open_project if (Path(path) / PROJECT_FILE).is_file() else None


def _read_slides(paths: str | list[str]) -> list[LayerData]:
    layers = []
    for path in [paths] if isinstance(paths, str) else paths:
        try:
            picture = open_image(path)
            shown = picture_layer(picture, whole=_WHOLE)
        except InputError as error:
            raise ValueError(str(error)) from None  # napari shows the sentence
        size = atomic.size_text(picture.shape[0] * picture.shape[1] * (1 if picture.gray else 3))
        known = f"{picture.mpp:.4g} µm per pixel" if picture.mpp else "the size of its pixels is not known"
        show_info(f"{picture.name}: {size} of pixels, read where you look; {known}.")
        options = {"name": picture.name, "rgb": shown.rgb, "multiscale": shown.multiscale, **shown.place}
        if not shown.rgb:
            options["contrast_limits"] = (0, 255)
        layers.append((shown.data, options, "image"))
    return layers


def _open_project(path: str | list[str]) -> list[LayerData]:
    import napari

    viewer = napari.current_viewer()
    folder = path if isinstance(path, str) else path[0]
    if viewer is None:
        show_warning("A project is opened in the dock Nuclei of a napari window.")
        return _NOTHING
    _, dock = viewer.window.add_plugin_dock_widget("napari-semiseg", "Nuclei")
    dock.view.open_project(folder)
    return _NOTHING
