"""Text that means harm is shown as it is, and numbers do not depend on the language of the machine."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QLabel, QListWidget, QWidget

from napari_semiseg.app.engine_model import ChildEnded
from napari_semiseg.blocks import Box
from napari_semiseg.events import Described, Failed, Ready, Run, Started, Warned
from napari_semiseg.io.images import open_image
from napari_semiseg.project.schema import ClassSpec

EVIL = "<b>bold</b><img src='file:///etc/passwd'>\n&lt;<script>x</script>"


class SilentEngine:
    """In the place of an `EngineWatch`: it hears everything and says nothing."""

    busy_s = 0.0
    closed = closing = False

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, command: Any) -> None:
        self.sent.append(command)

    def restart(self) -> None:
        self.sent.append("restart")

    def acknowledge(self) -> None:
        self.sent.append("acknowledge")

    def close(self) -> None:
        self.closed = self.closing = True

    def batches(self) -> Iterator[tuple[Any, ...]]:
        while not self.closed:
            time.sleep(0.02)
            yield ()


@pytest.fixture
def dock(qapp: Any) -> Iterator[Callable[..., Any]]:
    from napari_semiseg.plugin.widgets.dock import NucleiDock

    opened = []

    def open_one(image: np.ndarray, **options: Any) -> Any:
        viewer = PublicOnlyProxy(ViewerModel())
        viewer.add_image(image, **options)
        opened.append(NucleiDock(viewer, watch=SilentEngine()))
        opened[-1].resize(360, 900)
        opened[-1].show()
        settle()
        return opened[-1]

    yield open_one
    for each in opened:
        each.leave()
        assert each.supervisor.wait(5)
    QApplication.sendPostedEvents(None, 52)  # what was told to delete itself, is
    QApplication.processEvents()


def settle(seconds: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def shown(dock: QWidget) -> list[str]:
    """Every text in the dock, after checking that none of them would be taken for HTML."""
    texts = []
    for label in dock.findChildren(QLabel):
        texts.append(label.text())
        plain = label.textFormat() == Qt.TextFormat.PlainText
        assert plain or not Qt.mightBeRichText(label.text()), f"{label.objectName()} would show {label.text()[:80]!r}"
    for widget in dock.findChildren(QWidget):
        assert "<b>" not in widget.toolTip()
        assert "<script" not in widget.toolTip()
    for strip in dock.findChildren(QListWidget):
        for row in range(strip.count()):
            assert "<b>" not in strip.item(row).toolTip()
    return texts


def test_names_metadata_and_messages_are_shown_as_plain_text(dock: Callable[..., Any], tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(80, 220, (200, 200, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb")
    metadata = {"napari_semiseg": EVIL, EVIL: EVIL, "mpp": EVIL}
    widget = dock(image, name=EVIL + "x" * 1_000_000, metadata=metadata)
    settle()
    assert any("<b>bold</b>" in text for text in shown(widget))

    session = widget.session
    session.project.create(tmp_path / "case.semiseg")
    session.project.add_image(open_image(tmp_path / "a.tif"))
    session.show_image(0)
    tile = session.project.add_tile(0, box=Box(0, 0, 50, 50))
    session.project.folder.set_classes((ClassSpec(name="<b>tumor</b>", color="#d55e00"),))
    session.project.opened.emit()
    session.engine.apply([(Ready(1, {"torch": EVIL}), ""), (Described({"methods": [], "devices": []}), "")])
    settle()
    assert tile.id

    proposal = session.engine.job.id if session.engine.job else ""
    session.engine.apply([(Failed(EVIL, wrong_input=False, detail=EVIL), proposal)])
    settle()
    assert any("<script>" in text for text in shown(widget))
    session.engine.run("train", {"out": str(tmp_path / "run")})
    job = session.engine.job.id
    facts = {"method": EVIL, "network": EVIL, "device": EVIL}
    session.engine.apply([(Started("train", str(tmp_path / "run"), 5, facts), job), (Warned(EVIL), job)])
    settle()
    shown(widget)
    session.engine.apply([ChildEnded("crash", -9, log=str(tmp_path / "<b>log</b>"), detail=EVIL)])
    settle()
    assert any("<b>log</b>" in text for text in shown(widget))
    assert [command.verb for command in widget.supervisor.watch.sent if isinstance(command, Run)].count("train") == 1


# ---- languages


@pytest.fixture(scope="module")
def comma_decimals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine whose language writes 0,5; made here, since few machines have it."""
    folder = tmp_path_factory.mktemp("locales")
    try:
        subprocess.run(
            ["localedef", "-i", "de_DE", "-f", "UTF-8", str(folder / "de_DE.UTF-8")], capture_output=True, check=False
        )
    except OSError:
        pytest.skip("this system has no localedef to make a language with decimal commas")
    if not (folder / "de_DE.UTF-8").is_dir():
        pytest.skip("this system has no sources of languages")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8"}


_MEASURE = """
import locale, sys
locale.setlocale(locale.LC_ALL, "")  # as Qt does
assert locale.localeconv()["decimal_point"] == ",", locale.localeconv()
from pathlib import Path
import numpy as np
from napari_semiseg.atomic import read_json, write_json
from napari_semiseg.events import StepDone, decode_event, encode
from napari_semiseg.io.table import measure, write_csv
labels = np.zeros((20, 20), np.uint32)
labels[3:9, 4:11] = 1
write_csv(Path(sys.argv[1]), [measure(labels, np.zeros((20, 20, 3), np.uint8), None, 0.25)])
write_json(sys.argv[2], {"mpp": 0.25})
assert read_json(sys.argv[2]) == {"mpp": 0.25}
assert decode_event(encode(StepDone(1, {"sup": 0.5})))[0].losses == {"sup": 0.5}
"""


def test_numbers_are_written_and_read_with_points_where_people_write_commas(
    comma_decimals: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path / "a.csv"), str(tmp_path / "a.json")],
        env={**os.environ, **comma_decimals},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr

    with (tmp_path / "a.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert any("." in value for value in row.values())
    assert all(float(value) >= 0 for name, value in row.items() if value and name not in ("image", "class"))
    assert '"mpp": 0.25' in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_the_command_line_speaks_on_any_console(fields: Path, tmp_path: Path, encoding: str) -> None:
    """With signs that the console does not have, and answers that other programs read."""
    strange = tmp_path / "µm 日本 😀.tif"
    strange.write_bytes((fields / "labels" / "0.tif").read_bytes())
    command = [sys.executable, "-m", "napari_semiseg"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for arguments, status in (
        (["evaluate", str(strange), str(strange), "--json", str(tmp_path / "scores.json")], 0),
        (["evaluate", str(tmp_path / "日本.tif"), str(strange)], 2),
    ):
        done = subprocess.run([*command, *arguments], env=environment, capture_output=True, timeout=100)
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"Unicode" not in done.stderr
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
