"""Every example and every Python block of README and guides runs as it is printed."""

from __future__ import annotations

import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.plugin.conftest import NoEngine

from napari_semiseg.blocks import Box
from napari_semiseg.io.overlay import write_png
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_writer import ResultWriter
from napari_semiseg.samples import immunohistochemistry
from napari_semiseg.synthetic import SyntheticSlide

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(name: str) -> dict[str, Any]:
    """Run an example as a program, and return its names."""
    return runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the example is given as its only argument."""
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path)])
    return tmp_path


@pytest.fixture(scope="module")
def slide() -> tuple[np.ndarray, np.ndarray]:
    image, instances, _ = SyntheticSlide((160, 160), seed=3).read(0, 0, 160, 160)
    return image, instances


@pytest.fixture
def window(qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run an example that opens napari, with an engine that is never started; return its viewer, closed at the end."""
    import napari

    from napari_semiseg.plugin.widgets import dock

    supervisor = dock.Supervisor
    monkeypatch.setattr(dock, "Supervisor", lambda engine, parent, **_: supervisor(engine, parent, watch=NoEngine()))
    monkeypatch.setattr(napari, "run", lambda: None)
    viewers = []

    def open_window(name: str, names: dict[str, Any] | None = None) -> Any:
        found = run(name)
        if names is not None:
            names.update(found)
        viewers.append(found["viewer"])
        return found["viewer"]

    yield open_window
    for viewer in viewers:
        viewer.close()


def test_there_is_an_example_for_every_verb_that_the_package_offers():
    import napari_semiseg

    verbs = {name for name in napari_semiseg.__all__ if name.islower() and callable(getattr(napari_semiseg, name))}
    shown = "\n".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py"))

    assert {"train", "predict", "export", "evaluate", "run"} <= verbs
    for verb in verbs - {"demo", "read_labels"}:  # `make demo` shows the one; the other is a reader
        assert re.search(rf"\b{verb}\(", shown), f"no example shows {verb}"


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 45, f"{path.name} is too long to be read at once"


def test_few_labels_are_learned_from_and_judged(out, capsys):
    run("train_few_labels")

    told = capsys.readouterr().out
    assert "the threshold alone" in told
    assert list(out.glob("colon.semiseg/runs/*/checkpoints/best-*.safetensors"))


def test_a_network_is_trained_without_labels_and_shows_its_confidence(out):
    run("train_without_labels")

    assert Result.open(out / "colon.ome.zarr").complete
    assert (out / "confidence.png").stat().st_size > 1000


def test_an_image_is_predicted_and_exported(out):
    run("predict_and_export")

    assert {path.name for path in out.glob("field.*")} >= {"field.ome.zarr", "field.tif", "field.csv", "field.png"}


def test_what_a_method_sees_is_written_as_pictures(out):
    run("look_inside")

    assert (out / "inside" / "report.html").is_file()
    assert list((out / "inside").rglob("*.png"))


def test_a_folder_is_run_in_one_call(out):
    run("run_all")

    assert (out / "results" / "slide-1.csv").read_text(encoding="utf-8").count("\n") >= 1
    assert Result.open(out / "results" / "slide-2.ome.zarr").complete


def test_a_training_is_paused_stopped_and_resumed(out, capsys):
    run("pause_and_resume")

    assert capsys.readouterr().out.splitlines()[-1] == "Done: 8 steps"


def test_scores_are_printed_with_their_definitions(out, capsys):
    scores = run("evaluate")["scores"]

    assert 0.5 < scores.values["dice"] < 1
    assert "mean over images" in capsys.readouterr().out


def test_more_strength_parts_more_nuclei(out, capsys):
    run("propose_and_split")

    found = [int(line.split()[3]) for line in capsys.readouterr().out.splitlines() if line.startswith("Split")]
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_tiles_are_suggested_with_a_reason(out, capsys):
    run("suggest_tiles")

    assert capsys.readouterr().out.count("from the nearest tile") == 3


def test_methods_are_listed_with_their_options(capsys):
    run("list_methods")

    assert "--set weight_dice=0.5" in capsys.readouterr().out


def test_the_curves_of_a_run_are_drawn(tmp_path, monkeypatch, qtbot):
    from qtpy.QtWidgets import QApplication

    from napari_semiseg.events import StepDone, Validated, encode

    log = [StepDone(step, {"sup": 1 / (step + 1)}, {}, 1.0, 1.0) for step in range(5)]
    lines = [encode(event) for event in [*log, Validated(5, {"dice": 0.8, "threshold_dice": 0.7}, best=True)]]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="ascii")
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path)])
    monkeypatch.setattr(QApplication, "exec", lambda *_: 0)

    curves = run("curves_of_a_run")["curves"]
    qtbot.addWidget(curves)

    assert curves.verdict.text() == "yours 0.80 · threshold 0.70"
    assert "sup" in curves.legend.text()


def test_the_dock_opens_on_the_sample_image(window):
    viewer = window("open_the_dock")

    assert "Nuclei" in " ".join(viewer.window.dock_widgets)
    assert viewer.layers["colon"].data.shape == (512, 512, 3)


def test_what_the_demo_has_made_is_opened(window, out):
    image = immunohistochemistry()
    write_png(out / "immunohistochemistry.png", image)
    with ResultWriter.create(out / "immunohistochemistry.ome.zarr", image.shape[:2], ["nucleus"]) as writer:
        whole = Box.whole(image.shape[:2])
        writer.write_confidence(whole, np.full((1, *whole.shape), 200, np.uint8))
        writer.write_nuclei(whole, np.pad(np.full((8, 8), 7, np.uint32), ((0, 504), (0, 504))))
        writer.finish()

    viewer = window("open_demo")

    assert viewer.layers["nuclei"].data.max() == 7
    assert viewer.layers["confidence"].contrast_limits == [0, 255]
    np.testing.assert_array_equal(viewer.layers["image"].data, image)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("slide", lambda panel: panel.image.text() == "colon"),
        ("tiles", lambda panel: "Press Start" in panel.reason.text()),
        ("train", lambda panel: panel.bar.value() == 400),
        ("review", lambda panel: not panel.segment.isEnabled()),
        ("export", lambda panel: not panel.export.isEnabled()),
    ],
)
def test_each_panel_can_be_shown_on_its_own(name, shown, monkeypatch, window, qtbot):
    monkeypatch.setattr(sys, "argv", ["example", name])
    names: dict[str, Any] = {}
    window("one_panel", names)

    qtbot.waitUntil(lambda: shown(names["panel"]), timeout=5000)
    names["panel"].end()
    names["view"].end()
    names["session"].end()


@pytest.mark.parametrize("page", ["README.md", "docs/guides/python.md", "sample_data/README.md"])
def test_the_python_blocks_of_a_page_run_one_after_the_other(page, slide, tmp_path, monkeypatch):
    import tifffile

    monkeypatch.chdir(tmp_path)
    for folder, array in zip(("slides", "labels"), slide, strict=True):
        Path(folder).mkdir()
        tifffile.imwrite(Path(folder, "HE_0412.tif"), array, photometric="rgb" if array.ndim == 3 else "minisblack")
    shutil.copytree("slides", "images")
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    names: dict[str, Any] = {}

    assert blocks
    for block in blocks:
        # What takes minutes takes steps here; nothing else is changed.
        quick = block.replace("minutes=10", 'steps=3, set={"crop": 64, "batch_labeled": 2, "batch_unlabeled": 2}')
        exec(compile(quick, page, "exec"), names)  # noqa: S102
