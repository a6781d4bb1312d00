"""Images of a project that are not where they were. All of this reads disks: it is not for the GUI thread."""

from __future__ import annotations

import os
from pathlib import Path

from napari_semiseg.errors import InputError
from napari_semiseg.io.images import open_image
from napari_semiseg.io.locate import locate
from napari_semiseg.project.folder import ProjectFolder
from napari_semiseg.project.image_paths import image_exists


def lost_images(folder: ProjectFolder) -> list[int]:
    """List the images whose files are not where they were, by index."""
    return [index for index, source in enumerate(folder.images) if not image_exists(folder.path, source)]


def find_again(folder: ProjectFolder, index: int, path: str | Path) -> list[int]:
    """Say where an image lies now, and find other lost ones that lie beside it under the names that they had.

    Parameters
    ----------
    folder : ProjectFolder
    index : int
        Which image.
    path : path
        Its file or folder. Which plane of it is meant stays as it was.

    Returns
    -------
    list of int
        The images that were found, `index` first.

    Raises
    ------
    InputError
        If that is no image or one of another shape: nothing has changed then.
    """
    lost = [other for other in lost_images(folder) if other != index]
    folder.relink_image(index, _checked(folder, index, path))
    found = [index]
    for other in lost:
        beside = Path(path).parent / Path(locate(folder.source_path(other)).path).name
        try:
            if os.path.lexists(beside):
                folder.relink_image(other, _checked(folder, other, beside))
                found.append(other)
        except InputError:  # another image of the same name: somebody has to say where this one lies
            continue
    return found


def _checked(folder: ProjectFolder, index: int, path: str | Path) -> str:
    """Return what is stored for an image that lies there, which it has to be by its shape."""
    source, before = folder.images[index], folder.source_path(index)
    now = f"{path}{before.removeprefix(locate(before).path)}"
    shape = open_image(now, series=source.series, mpp=source.mpp).shape
    if source.shape not in (None, shape):
        raise InputError(
            f"“{Path(path).name}” has {shape[1]} × {shape[0]} pixels and “{source.name}” has {source.shape[1]} × "
            f"{source.shape[0]}, so it is another image: choose the file of this one."
        )
    return now
