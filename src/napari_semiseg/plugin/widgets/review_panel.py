"""Step 4: segment the image, move the sliders, look at what is in doubt."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_semiseg.app.comparison import Comparison
from napari_semiseg.app.history_nuclei import HistoryNuclei
from napari_semiseg.app.nuclei_review import NucleiReview
from napari_semiseg.app.onward import Onward
from napari_semiseg.app.session import Session
from napari_semiseg.app.words import count
from napari_semiseg.plugin.comparison_layers import BOTH, ONLY_OTHER, ONLY_THIS, ComparisonLayers
from napari_semiseg.plugin.history_layers import HistoryLayers
from napari_semiseg.plugin.history_player import HistoryPlayer
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.layers import role
from napari_semiseg.plugin.nucleus_mark import NucleusMark
from napari_semiseg.plugin.peek import Peek
from napari_semiseg.plugin.region_tool import RegionTool
from napari_semiseg.plugin.result_layers import Picture, ResultLayers
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.look import main_button, plain_button
from napari_semiseg.plugin.widgets.score_table import ScoreTable
from napari_semiseg.plugin.widgets.step import ElidedLabel

_AREAS = {"µm²": (0.5, 60.0, 0.5, 1), "px": (1, 1000, 1, 0)}
"""Least and largest area of the smallest nucleus that the slider gives, its step, and how many decimals it shows."""
_GAPS = "Parts of the image could not be read, and nuclei are missing there. Segmenting again tries them again."
_LEGEND = {ONLY_THIS: "this run only", BOTH: "both", ONLY_OTHER: "the other only"}
_BY_DOUBT = "Go through the nuclei, the most doubtful first: each word becomes a label"
_HISTORY = (
    "Show the confidence at each kept step of the newest training, and beside it the nuclei that the sliders make of it"
)
_COMPARE = "Segment this image with another run as well, and see where the two differ"
_ONWARD = "Go to the next image that this model has not segmented yet, and segment it"
_HELP = {
    "threshold": "Confidence above which a pixel counts as nucleus: higher finds less",
    "strength": "How readily touching nuclei are parted: 0 never, 1 always",
    "min_area": "Nuclei smaller than this are left out",
}


class ReviewPanel(QWidget):
    """Shows the review model, and asks it.

    Parameters
    ----------
    session : Session
    viewer : napari viewer
    view : SlideView
    tiles : TileLayers
        Where words on nuclei are written down.
    keys : Keys
    """

    changed = Signal()

    def __init__(
        self,
        session: Session,
        viewer: Any,
        view: SlideView,
        tiles: TileLayers,
        keys: Keys,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.session, self.viewer, self.keys = session, viewer, keys
        self.model = session.review
        self.summary, self.done = "", False
        self.layers = ResultLayers(session, viewer, view, self)
        self.peek = Peek(viewer, keys)
        self.tiles = tiles
        self.nuclei = NucleiReview(session)
        self.mark = NucleusMark(session, viewer, view)
        self.region = RegionTool(session, viewer, view)
        self.view = view
        self.comparison = Comparison(session)
        self.comparison_layers = ComparisonLayers(session, viewer, view, self.comparison)
        self.history = HistoryNuclei(session)
        self.history_layers = HistoryLayers(session, viewer, view, self.history, self.layers)
        self.onward = Onward(session, view.show_image)
        self.step_tile: Callable[[int], object] = lambda by: None  # what N and P do while there is no nucleus to go to
        self._place = -1
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        self.segment = main_button("Segment", "")
        self.segment.clicked.connect(lambda: self.model.request_predict())
        self.reason = QLabel()
        self.reason.setObjectName("semisegReason")
        self.reason.setTextFormat(Qt.TextFormat.PlainText)
        self.reason.setWordWrap(True)
        layout.addWidget(self.segment)
        layout.addWidget(self.reason)
        layout.addWidget(self._make_progress())
        layout.addWidget(self._make_result())
        self.model.changed.connect(self._show)
        self.model.split_changed.connect(self._show_split)
        self.model.result_changed.connect(self._first_place)
        self.nuclei.changed.connect(self._show_nuclei)
        self.region.changed.connect(self._show_region)
        self.comparison.changed.connect(self._show_comparison)
        self.history.changed.connect(self._show_history)
        viewer.layers.events.inserted.connect(self._give_keys)
        keys.changed.connect(self._show_keys)
        self._show_keys()
        self._show_split()
        self._show()
        self._show_nuclei()
        self._show_region()
        self._show_comparison()
        self._show_history()

    def end(self) -> None:
        """Let go of the viewer and of the model."""
        self.model.changed.disconnect(self._show, missing_ok=True)
        self.model.split_changed.disconnect(self._show_split, missing_ok=True)
        self.model.result_changed.disconnect(self._first_place, missing_ok=True)
        self.viewer.layers.events.inserted.disconnect(self._give_keys)
        self.keys.changed.disconnect(self._show_keys, missing_ok=True)
        self.nuclei.end()
        self.mark.end()
        self.region.end()
        self.onward.end()
        self.comparison_layers.end()
        self.comparison.end()
        self.history_layers.end()
        self.history.end()
        self.player.end()
        self.layers.end()
        self.peek.end()

    # ---- parts ----

    def _make_progress(self) -> QWidget:
        self.progress = QWidget()
        column = QVBoxLayout(self.progress)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.time = ElidedLabel()
        self.pause = plain_button("❚❚", "Pause after this block")
        self.stop = plain_button("■", "Stop; asking again goes on where it stopped")
        self.pause.clicked.connect(self.model.pause)
        self.stop.clicked.connect(self.model.stop)
        row = QHBoxLayout()
        row.setSpacing(2)
        row.addWidget(self.time, 1)
        row.addWidget(self.pause)
        row.addWidget(self.stop)
        column.addWidget(self.bar)
        column.addLayout(row)
        return self.progress

    def _make_result(self) -> QWidget:
        self.result_box = QWidget()
        column = QVBoxLayout(self.result_box)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(5)
        self.threshold, self.strength = QLabeledDoubleSlider(), QLabeledDoubleSlider()
        self.min_area = QLabeledDoubleSlider()
        grid = QGridLayout()
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        self.names: dict[str, QLabel] = {}
        rows = (("threshold", self.threshold), ("strength", self.strength), ("min_area", self.min_area))
        words = {"threshold": "Threshold", "strength": "Split", "min_area": "Smallest"}
        for number, (name, slider) in enumerate(rows):
            slider.setOrientation(Qt.Orientation.Horizontal)
            slider.setToolTip(_HELP[name])
            label = QLabel(words[name])
            label.setToolTip(_HELP[name])
            self.names[name] = label
            grid.addWidget(label, number, 0)
            grid.addWidget(slider, number, 1)
        for slider in (self.threshold, self.strength):
            slider.setRange(0.0, 1.0)
            slider.setSingleStep(0.01)
            slider.setDecimals(2)
        self._show_unit()
        self.threshold.valueChanged.connect(lambda value: self.model.set_split(threshold=round(float(value), 3)))
        self.strength.valueChanged.connect(lambda value: self.model.set_split(strength=round(float(value), 3)))
        self.min_area.valueChanged.connect(lambda value: self.model.set_smallest(round(float(value), 3)))
        self.count = ElidedLabel()
        self.measure = plain_button("Measure", "")
        self.measure.setObjectName("semisegPen")
        self.measure.clicked.connect(self.model.measure)
        line = QHBoxLayout()
        line.setSpacing(2)
        line.addWidget(self.count, 1)
        line.addWidget(self.measure)
        column.addLayout(line)
        column.addLayout(grid)
        self.sliders_wait = QLabel()
        self.sliders_wait.setTextFormat(Qt.TextFormat.PlainText)
        self.sliders_wait.setObjectName("semisegHint")
        self.sliders_wait.setWordWrap(True)
        column.addWidget(self.sliders_wait)
        column.addLayout(self._make_doubt())
        column.addWidget(self._make_nuclei())
        column.addLayout(self._make_region())
        column.addWidget(self._make_comparison())
        return self.result_box

    def _make_doubt(self) -> QVBoxLayout:
        self.confidence = _toggle("Confidence", "Show how sure the network is that there is a nucleus")
        self.doubt = _toggle("Doubt", "Show where the network is unsure")
        self.confidence.clicked.connect(partial(self._choose_picture, "confidence"))
        self.doubt.clicked.connect(partial(self._choose_picture, "doubt"))
        self.next = QPushButton()
        self.next.setToolTip("Go to the next place where the network is unsure, the most doubtful first")
        self.next.clicked.connect(self._next_place)
        self.look = plain_button("Peek", "")
        self.look.setObjectName("semisegPen")
        self.look.pressed.connect(self.peek.begin)
        self.look.released.connect(self.peek.finish)
        first, second, both = QHBoxLayout(), QHBoxLayout(), QVBoxLayout()
        self.beside = _toggle("History", "")
        self.beside.clicked.connect(self.history.switch)
        self.player = HistoryPlayer(self.session.training.history)
        self.played = ElidedLabel()
        self.played.setObjectName("semisegHint")
        self.history_box = QWidget()
        played = QVBoxLayout(self.history_box)
        played.setContentsMargins(0, 0, 0, 0)
        played.setSpacing(1)
        played.addWidget(self.player)
        played.addWidget(self.played)
        for widget in (self.confidence, self.doubt, self.beside):
            first.addWidget(widget)
        first.addStretch(1)
        first.addWidget(self.look)
        second.addWidget(self.next, 1)
        both.setSpacing(3)
        both.addLayout(first)
        both.addWidget(self.history_box)
        both.addLayout(second)
        return both

    def _make_nuclei(self) -> QWidget:
        """Make what goes through the nuclei one by one."""
        self.begin_nuclei = QPushButton("Nuclei by doubt")
        self.begin_nuclei.clicked.connect(self.nuclei.ask)
        self.nuclei_box = QWidget()
        row = QHBoxLayout(self.nuclei_box)
        row.setContentsMargins(0, 0, 0, 0)
        self.accept = QPushButton("✓ Accept")
        self.reject = QPushButton("✕ Reject")
        self.back = plain_button("◂", "The one before")
        self.accept.clicked.connect(partial(self._decide, True))
        self.reject.clicked.connect(partial(self._decide, False))
        self.undo = plain_button("Undo", "")
        self.undo.setObjectName("semisegPen")
        self.back.clicked.connect(partial(self.nuclei.step, -1))
        self.undo.clicked.connect(self.nuclei.take_back)
        for widget, width in ((self.back, 0), (self.accept, 1), (self.reject, 1), (self.undo, 0)):
            row.addWidget(widget, width)
        self.nuclei_words = ElidedLabel()
        self.nuclei_words.setObjectName("semisegHint")
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        for widget in (self.begin_nuclei, self.nuclei_box, self.nuclei_words):
            column.addWidget(widget)
        return whole

    def _make_comparison(self) -> QWidget:
        """Make what compares two runs, and what takes the model to the next image."""
        self.accuracy = QLabel()
        self.accuracy.setTextFormat(Qt.TextFormat.PlainText)
        self.accuracy.setObjectName("semisegReason")
        self.accuracy.setWordWrap(True)
        self.compare = QToolButton()
        self.compare.setObjectName("semisegPen")
        self.compare.setText("Compare with ▾")
        self.compare.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.runs = QMenu(self)
        self.compare.setMenu(self.runs)
        self.flip = QPushButton("A/B")
        self.flip.setCheckable(True)
        self.flip.clicked.connect(self.comparison_layers.flip)
        self.prefer = QPushButton("Use the other")
        self.prefer.setToolTip("Segment this image with the other run instead, and go on with that one")
        self.prefer.clicked.connect(self._prefer_other)
        self.end_comparison = plain_button("✕", "Compare no longer")
        self.end_comparison.clicked.connect(self.comparison.drop)
        self.go_on = QPushButton("Use on the next image")
        self.go_on.clicked.connect(self.onward.go)
        self.difference = QLabel()
        self.difference.setTextFormat(Qt.TextFormat.PlainText)
        self.difference.setObjectName("semisegHint")
        self.difference.setWordWrap(True)
        row, turns = QHBoxLayout(), QHBoxLayout()
        row.addWidget(self.compare)
        row.addWidget(self.go_on, 1)
        for widget, width in ((self.difference, 1), (self.end_comparison, 0)):
            turns.addWidget(widget, width)
        choice = QHBoxLayout()
        for widget in (self.flip, self.prefer):
            choice.addWidget(widget)
        whole = QWidget()
        column = QVBoxLayout(whole)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        self.scores = ScoreTable()
        self.legend = _legend()
        column.addWidget(self.accuracy)
        column.addLayout(row)
        column.addLayout(turns)
        column.addWidget(self.legend)
        column.addLayout(choice)
        column.addWidget(self.scores)
        return whole

    def _make_region(self) -> QHBoxLayout:
        self.draw_region = QPushButton("Measure a region")
        self.draw_region.setToolTip("Draw around it: nuclei, nuclei per mm², and the share that DAB stains")
        self.draw_region.setCheckable(True)
        self.draw_region.clicked.connect(self.region.switch)
        self.copy = plain_button("Copy", "Copy the figures")
        self.copy.setObjectName("semisegPen")
        self.copy.clicked.connect(self.region.copy)
        self.figures = QLabel()
        self.figures.setTextFormat(Qt.TextFormat.PlainText)
        self.figures.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.draw_region)
        row.addWidget(self.figures, 1)
        row.addWidget(self.copy)
        return row

    # ---- doing ----

    def _decide(self, accepted: bool, *_: object) -> None:
        self.nuclei.decide(accepted, self.tiles.decide)

    def _step(self, by: int) -> None:
        """Go to the next nucleus in doubt, or where nobody goes through them, to the next tile."""
        if self.nuclei.current is not None:
            self.nuclei.step(by)
        else:
            self.step_tile(by)

    def _prefer_other(self) -> None:
        """Segment with the run that is compared with, and compare no longer."""
        compared = self.comparison.compared
        if compared is not None:
            self.comparison.drop()
            self.model.request_predict(compared.path)

    def _show_comparison(self) -> None:
        found = self.comparison
        self.runs.clear()
        for run in found.runs:
            self.runs.addAction(run.words.replace("&", "&&"), partial(found.compare, run.path))
        self.compare.setEnabled(not found.why_not and not found.waiting)
        self.compare.setToolTip(found.why_not or _COMPARE)
        for widget in (self.flip, self.prefer):
            widget.setVisible(found.difference is not None)
        self.prefer.setEnabled(not self.model.why_not and not found.waiting)
        self.flip.setChecked(self.comparison_layers.showing_other)
        self.flip.setToolTip(
            f"Show the nuclei of the other run ({found.compared.words}), or again those of this one"
            if found.compared
            else ""
        )
        self._show_waiting()
        for widget in (self.legend, self.scores):
            widget.setVisible(found.difference is not None)
        if found.difference is not None:
            self.scores.show_scores(found.scores)
        self.accuracy.setText(found.accuracy)
        self.accuracy.setToolTip(
            f"Of the run {self.model.run}, with which this image was segmented" * bool(self.model.run)
        )

    def _give_keys(self, event: Any) -> None:
        """Bind the keys of the nuclei of a result."""
        if role(event.value) in ("nuclei", "confidence"):
            calls = {
                "accept": lambda _: self._decide(True),
                "delete": lambda _: self._decide(False),
                "next_tile": lambda _: self._step(1),
                "previous_tile": lambda _: self._step(-1),
                "take_back": lambda _: self.nuclei.take_back(),
            }
            self.keys.bind(event.value, calls)

    def _show_nuclei(self) -> None:
        found, begun = self.nuclei, self.nuclei.current is not None
        self.begin_nuclei.setText("Looking…" if found.waiting else "Nuclei by doubt")
        self.begin_nuclei.setEnabled(not found.waiting and not found.why_not)
        self.begin_nuclei.setToolTip(found.why_not or _BY_DOUBT)
        self.begin_nuclei.setVisible(not begun)
        begins = begun and self.nuclei_box.isHidden()
        self.nuclei_box.setVisible(begun)
        self._show_waiting()
        self.undo.setEnabled(found.can_take_back)
        self.mark.show(found.current)
        if begins:
            self._take_keys()

    def _show_keys(self) -> None:
        for button, name, does in (
            (self.accept, "accept", "This is a nucleus"),
            (self.reject, "delete", "There is no nucleus here"),
            (self.undo, "take_back", "Take the last word back"),
        ):
            button.setToolTip(f"{does}; with the layer of nuclei selected: {self.keys.of(name)}")
        key = self.keys.of("peek")
        self.look.setToolTip(f"Hold to see the image alone; with a layer of ours selected, hold {key}")

    def _take_keys(self) -> None:
        """Choose the layer that has the keys, and a button that lets them through: the next key counts."""
        if self.layers.nuclei is not None and self.layers.nuclei in self.viewer.layers:
            self.viewer.layers.selection.active = self.layers.nuclei
        self.accept.setFocus()

    def _show_history(self) -> None:
        self.beside.setEnabled(not self.history.why_not)
        self.beside.setToolTip(self.history.why_not or _HISTORY)
        self.beside.setChecked(self.history.on)
        self.history_box.setVisible(self.history.on)
        self._show_waiting()

    def _show_region(self) -> None:
        self.draw_region.setChecked(self.region.drawing)
        self._show_waiting()
        self.copy.setVisible(bool(self.region.words))

    def _choose_picture(self, picture: Picture, shown: bool) -> None:
        self.layers.show_picture(picture if shown else "")
        self.confidence.setChecked(self.layers.picture == "confidence")
        self.doubt.setChecked(self.layers.picture == "doubt")

    def _first_place(self) -> None:
        self._place = -1
        self._show()

    def _next_place(self) -> None:
        places = self.layers.doubtful
        if places:
            self._place = (self._place + 1) % len(places)
            self.layers.look_at(places[self._place])
            self._show()

    # ---- showing ----

    def _show(self) -> None:
        model, why = self.model, self.model.why_not
        self.segment.setVisible(not model.active)
        self.segment.setEnabled(not why)
        self.segment.setToolTip(why or "Find every nucleus of this image with the newest training")
        self.segment.setText("Segment again" if model.result is not None else "Segment")
        self.reason.setText(why)
        self.reason.setVisible(bool(why) and not model.active)
        self.progress.setVisible(model.active)
        self.bar.setRange(0, 1000 if model.total else 0)
        self.bar.setValue(round(1000 * model.share_done))
        self.time.setText(model.time_words)
        self.pause.setText("▶" if model.state == "paused" else "❚❚")
        self.pause.setEnabled(model.state in ("running", "paused"))
        self.stop.setEnabled(model.state != "stopping")
        self.result_box.setVisible(model.result is not None and not model.active)
        busy = " · splitting…" if model.applying else " · measuring…" if model.measuring else ""
        why_not_measure = model.why_not_measure
        self.measure.setEnabled(not why_not_measure)
        self.measure.setToolTip(why_not_measure or "Measure every nucleus into a table beside the result and in napari")
        self.count.setText(f"{model.count_words}{busy}")
        if model.gaps:
            self.count.setToolTip(_GAPS)
        self.go_on.setEnabled(not self.onward.why_not)
        self.go_on.setToolTip(self.onward.why_not or _ONWARD)
        self._show_places()
        self._show_waiting()
        summary = model.time_words if model.active else model.count_words
        shown = summary, model.result is not None and not model.active
        if shown != (self.summary, self.done):
            self.summary, self.done = shown
            self.changed.emit()

    def _show_waiting(self) -> None:
        """Show the lines that say what has been found, or what they wait for: a training that has so much time left."""
        self.sliders_wait.setText(self.model.wait_words)
        self.sliders_wait.setVisible(bool(self.model.wait_words))
        self.nuclei_words.setText(self.nuclei.words)
        self.nuclei_words.setVisible(bool(self.nuclei.words))
        self.figures.setText(self.region.wait_words or self.region.words)
        self.played.setText(self.history.words)
        self.difference.setText(self.comparison.words)
        for widget in (self.difference, self.end_comparison):
            widget.setVisible(bool(self.comparison.words))

    def _show_places(self) -> None:
        places = self.layers.doubtful
        self.next.setEnabled(bool(places))
        if not places:
            self.next.setText("no place in doubt")
        elif self._place < 0:
            self.next.setText(f"{count(len(places), 'place')} in doubt  ▸")
        else:
            self.next.setText(f"{self._place + 1} of {len(places)} in doubt  ▸")

    def _show_split(self) -> None:
        split, smallest = self.model.split, self.model.smallest
        values = ((self.threshold, split.threshold), (self.strength, split.strength), (self.min_area, smallest))
        for slider, value in values:
            slider.blockSignals(True)
            if slider is self.min_area:
                self._show_unit()
            if value is not None:
                slider.setValue(value)
            slider.blockSignals(False)

    def _show_unit(self) -> None:
        """Let the slider of the smallest nucleus speak of µm² where the size of a pixel is known, else of pixels."""
        unit = "µm²" if self.model.mpp else "px"
        least, largest, step, decimals = _AREAS[unit]
        self.names["min_area"].setText(f"Smallest, {unit}")
        self.min_area.setDecimals(decimals)
        self.min_area.setRange(least, largest)
        self.min_area.setSingleStep(step)


def _toggle(text: str, tooltip: str) -> QToolButton:
    button = QToolButton()
    button.setObjectName("semisegPen")
    button.setText(text)
    button.setToolTip(tooltip)
    button.setCheckable(True)
    button.setCursor(Qt.CursorShape.PointingHandCursor)
    return button


def _legend() -> QWidget:
    """Say which color means what, in plain text: a swatch and its words."""
    legend = QWidget()
    row = QHBoxLayout(legend)
    row.setContentsMargins(0, 0, 0, 0)
    for color, words in _LEGEND.items():
        swatch, meaning = QLabel("■"), QLabel(words)
        swatch.setStyleSheet(f"color: {color};")
        meaning.setObjectName("semisegHint")
        row.addWidget(swatch)
        row.addWidget(meaning)
    row.addStretch()
    return legend
