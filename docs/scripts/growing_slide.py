"""Take a picture of a slide whose nuclei appear while it is segmented.

Usage: .ci/with-display python docs/scripts/growing_slide.py OUT --slide SLIDE --run RUN [--theme dark|light]

SLIDE is made by `benchmarks/slide.py make`, RUN by `napari-semiseg train SLIDE --method hematoxylin_threshold`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
from take_screenshots import Photographer, need, wait

from napari_semiseg.plugin.layers import visible_box

SLOW = 600
"""Seconds that anything may take on a busy machine."""
IN_VIEW = 2400.0
"""Pixels of the slide from top to bottom."""


def segment(eye: Photographer, slide: Path, run: Path) -> None:
    """Open a slide, start a project, put a run into it, and segment."""
    dock = eye.dock
    dock.view.open_image(slide)
    need(SLOW, lambda: dock.view.layer is not None and dock.view.layer.loaded, "the slide")
    need(SLOW, lambda: dock.session.engine.description.get("complete"), "what the engine can do")
    need(SLOW, lambda: dock.session.engine.job is None, "the proposal")
    dock.slide_panel.start.click()
    need(SLOW, lambda: dock.view.started, "the start")
    project = dock.session.project.path
    dock.view.close_project()
    shutil.copytree(run, project / "runs" / run.name)
    dock.view.open_project(project)
    need(SLOW, lambda: dock.view.started and dock.session.engine.job is None, "the project")
    need(SLOW, dock.review_panel.segment.isEnabled, "what is needed to segment")
    dock.review_panel.segment.click()
    need(SLOW, lambda: dock.session.review.active, "the segmentation")


def half_in_view(eye: Photographer) -> bool:
    """Whether two or three quarters of what is seen have nuclei."""
    growing, view = eye.dock.review_panel.layers.growing, eye.dock.view
    box = visible_box(eye.viewer, view.placement, view.slide.shape)
    if growing is None or box is None:
        return False
    found = np.asarray(growing.data[0][box.slices])[::8, ::8] > 0
    quarters = [part for half in np.array_split(found, 2) for part in np.array_split(half, 2, axis=1)]
    return 2 <= sum(part.mean() > 0.02 for part in quarters) <= 3


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp())
    slide = home / options.slide.name
    slide.symlink_to(options.slide.resolve())  # its project lies beside it
    eye = Photographer(options.out, options.theme)
    segment(eye, slide, options.run)
    eye.unfold("Review")
    height = eye.dock.view.slide.shape[0]
    eye.look_at(height / 2, eye.dock.view.slide.shape[1] / 2, IN_VIEW)
    need(SLOW, lambda: half_in_view(eye), "nuclei in a part of the view")
    for layer in eye.roles("confidence"):
        layer.visible = False
    eye.shoot("4-growing")
    eye.dock.session.review.stop()
    wait(SLOW, lambda: not eye.dock.session.review.active)
    eye.viewer.close()
    wait(3)
    shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
