"""Step 5: write the result, and the model that it came from, in the formats that others read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QLabel, QProgressBar, QVBoxLayout, QWidget
from superqt import QFlowLayout
from superqt.utils import signals_blocked

from napari_semiseg.app.export_model import FORMATS, Format, Outcome
from napari_semiseg.app.session import Session
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.widgets.look import main_button, plain_button, sentences
from napari_semiseg.plugin.widgets.step import ElidedLabel

_TITLES = {form.name: form.title for form in FORMATS}


class ExportPanel(QWidget):
    """Shows the export model, and asks it.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    """

    changed = Signal()

    def __init__(self, session: Session, viewer: Any, view: SlideView, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session, self.view = session, view
        self.model = session.exporting
        self.summary, self.done = "", False
        self._shown: list[Outcome] | None = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addWidget(self._make_formats())
        layout.addLayout(self._make_target())
        self.export = main_button("Export", "")
        self.export.clicked.connect(self.model.request_export)
        self.reason = sentences("semisegReason")
        layout.addWidget(self.export)
        layout.addWidget(self._make_progress())
        layout.addWidget(self.reason)
        self._outcomes = QVBoxLayout()
        self._outcomes.setSpacing(1)
        layout.addLayout(self._outcomes)
        self.model.changed.connect(self._show)
        self._show()

    def end(self) -> None:
        """Hear nothing more."""
        self.model.changed.disconnect(self._show, missing_ok=True)

    # ---- parts ----

    def _make_formats(self) -> QWidget:
        box = QWidget()
        column = QVBoxLayout(box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self.boxes: dict[str, QCheckBox] = {}
        for holds, title in (("nuclei", "The nuclei"), ("model", "The model")):
            heading = QLabel(title)
            heading.setObjectName("semisegHint")
            column.addWidget(heading)
            column.addWidget(self._make_group([form for form in FORMATS if form.holds == holds]))
        return box

    def _make_group(self, forms: list[Format]) -> QWidget:
        box = QWidget()
        row = QFlowLayout(box)
        row.setContentsMargins(0, 0, 0, 0)
        for form in forms:
            tick = QCheckBox(form.title)
            tick.setToolTip(form.help)
            tick.toggled.connect(partial(self.model.tick_format, form.name))
            self.boxes[form.name] = tick
            row.addWidget(tick)
        return box

    def _make_target(self) -> QVBoxLayout:
        self.target = ElidedLabel()
        self.change = plain_button("Change…", "Write into another folder")
        self.change.clicked.connect(self._ask_target)
        self.replace = QCheckBox("Replace earlier exports")
        self.replace.setToolTip("Files of the same names in that folder that an earlier export has written")
        self.replace.toggled.connect(self.model.set_replace)
        row = QHBoxLayout()
        row.addWidget(QLabel("To"))
        row.addWidget(self.target, 1)
        row.addWidget(self.change)
        column = QVBoxLayout()
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(self.replace)
        return column

    def _make_progress(self) -> QWidget:
        self.progress = QWidget()
        row = QHBoxLayout(self.progress)
        row.setContentsMargins(0, 0, 0, 0)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.bar.setRange(0, 1000)
        self.doing = QLabel()
        self.doing.setObjectName("semisegHint")
        self.stop = plain_button("■", "Stop; what was written stays")
        self.stop.clicked.connect(self.model.stop)
        row.addWidget(self.bar, 1)
        row.addWidget(self.doing)
        row.addWidget(self.stop)
        return self.progress

    # ---- doing ----

    def _ask_target(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder to export to", str(self.model.target.parent))
        if path:
            self.model.choose_target(path)

    # ---- showing ----

    def _show(self) -> None:
        model, why = self.model, self.model.why_not
        for name, tick in self.boxes.items():
            with signals_blocked(tick):
                tick.setChecked(name in model.formats)
            tick.setEnabled(not model.active)
        self.target.setText(str(model.target) if model.target != Path() else "")
        self.change.setEnabled(not model.active)
        self.replace.setChecked(model.replace)
        self.export.setEnabled(not why)
        self.export.setToolTip(why or f"Write {', '.join(form.title for form in model.chosen)}")
        self.export.setVisible(not model.active)
        self.reason.setText(why)
        self.reason.setVisible(bool(why) and not model.active)
        self.progress.setVisible(model.active)
        self.bar.setValue(round(1000 * model.share_done))
        self.doing.setText(model.doing)
        if model.outcomes != self._shown:
            self._shown = list(model.outcomes)
            self._show_outcomes(self._shown)
        written = sum(bool(outcome.path) for outcome in model.outcomes)
        summary = f"{written} written" if written else " · ".join(form.title for form in model.chosen)
        shown = summary, bool(written) and not model.active
        if shown != (self.summary, self.done):
            self.summary, self.done = shown
            self.changed.emit()

    def _show_outcomes(self, outcomes: list[Outcome]) -> None:
        while self._outcomes.count():
            self._outcomes.takeAt(0).widget().deleteLater()
        for outcome in outcomes:
            self._outcomes.addWidget(self._outcome(outcome))

    def _outcome(self, outcome: Outcome) -> QWidget:
        row_box = QWidget()
        row = QHBoxLayout(row_box)
        row.setContentsMargins(0, 0, 0, 0)
        if outcome.path:
            name = ElidedLabel(f"✓ {Path(outcome.path).name}")
            opener = plain_button("open folder", f"Show {outcome.path} among its files")
            opener.clicked.connect(partial(open_folder, outcome.path))
            row.addWidget(name, 1)
            row.addWidget(opener)
        else:
            problem = QLabel(f"✗ {_TITLES[outcome.format]}: {outcome.problem}")
            problem.setTextFormat(Qt.TextFormat.PlainText)
            problem.setWordWrap(True)
            row.addWidget(problem, 1)
        return row_box


def open_folder(path: str) -> None:
    """Show the folder of a file in the system's own file browser."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(Path(path).parent)))
