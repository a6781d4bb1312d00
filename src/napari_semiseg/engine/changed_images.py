"""Before a run goes on: whether its images are still those that it has learned from."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from napari_semiseg.engine.checkpoint import RunFolder
from napari_semiseg.errors import InputError
from napari_semiseg.events import Event, ImagesChanged
from napari_semiseg.io.images import Image


def fingerprints(images: Sequence[Image]) -> dict[str, str]:
    """Return a hash of each image by its source, as ``run.json`` keeps them."""
    return {image.source: image.fingerprint() for image in images}


def agree_on_images(
    run: RunFolder, config: dict[str, Any], images: Sequence[Image], *, agreed: bool
) -> Generator[Event, None, tuple[str, ...]]:
    """Compare the images of a run with those it began with, and ask where one has changed.

    Nothing but the run's note of what its images are is written, and only once it is agreed that it goes on.

    Parameters
    ----------
    run : RunFolder
    config : dict
        What ``run.json`` says; its ``fingerprints`` are brought up to date.
    images : sequence of Image
    agreed : bool
        Whether the user has said that the run is to go on with the images as they are now.

    Yields
    ------
    Event
        `ImagesChanged` where somebody has to decide.

    Returns
    -------
    tuple of str
        A sentence for each image that has changed, for who agreed to it.

    Raises
    ------
    InputError
        If an image has changed and nobody has agreed.
    """
    known = config.get("fingerprints")
    known = known if isinstance(known, dict) else {}
    now = fingerprints(images)
    changed = [source for source, value in now.items() if known.get(source, value) != value]
    if not changed:
        return ()
    if not agreed:
        yield ImagesChanged(changed)
        more = f", and {len(changed) - 1} more," if len(changed) > 1 else ""
        raise InputError(
            f"{changed[0]}{more} has changed since this run began: put the old image back, begin a new run, or "
            "go on with the image as it is now (--changed-images)."
        )
    config["fingerprints"] = {**known, **now}
    run.write_config(config)
    return tuple(
        f"{source} has changed since this run began: it goes on with the image as it is now." for source in changed
    )
