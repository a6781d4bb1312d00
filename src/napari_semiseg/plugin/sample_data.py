"""*File → Open Sample*: what a first look and a tutorial start from, with neither network nor torch."""

from __future__ import annotations

from napari.types import LayerDataTuple

from napari_semiseg.samples import immunohistochemistry, immunohistochemistry_tiles, synthetic_field

SIZE = 1000  # pixels
SEED = 3  # glands, fat, fibers and inflammation all lie in this one


def open_immunohistochemistry() -> list[LayerDataTuple]:
    """Return the real image, and in place the nuclei of the tiles that are there to be learned from.

    Returns
    -------
    list of layer data tuple
        One image, then a labels layer for each tile; in pixels, since the pixel size is not known. The tiles for
        scoring are left out, so that nobody trains on them by mistake.
    """
    axes = {"axis_labels": ("y", "x"), "units": ("pixel", "pixel")}
    layers: list[LayerDataTuple] = [
        (immunohistochemistry(), {"name": "immunohistochemistry", "rgb": True, **axes}, "image"),
    ]
    for tile in immunohistochemistry_tiles("label"):
        options = {
            "name": f"nuclei {tile.name}",
            "translate": (tile.box.y0, tile.box.x0),
            "opacity": 0.5,
            "metadata": {"sample_tile": tile.name, "role": tile.role},
            **axes,
        }
        layers.append((tile.instances, options, "labels"))
    return layers


def open_synthetic_field() -> list[LayerDataTuple]:
    """Return a synthetic field of 1000 x 1000 pixels, and its nuclei as a hidden layer.

    Returns
    -------
    list of layer data tuple
        The image and the truth, with the pixel size in µm.
    """
    field = synthetic_field(SIZE, SEED)
    place = {"scale": (field.mpp, field.mpp), "units": ("um", "um"), "axis_labels": ("y", "x")}
    return [
        (field.image, {"name": "synthetic H&E", "rgb": True, **place}, "image"),
        (field.instances, {"name": "true nuclei", "visible": False, "opacity": 0.5, **place}, "labels"),
    ]
