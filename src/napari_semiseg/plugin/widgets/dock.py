"""The dock “Nuclei”: five steps from a slide to a result."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import napari
from psygnal import Signal
from qtpy.QtCore import QCoreApplication, QEvent, QSize, Qt, QTimer, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QMenu, QScrollArea, QToolButton, QVBoxLayout, QWidget

from napari_semiseg.app.engine_watch import EngineWatch
from napari_semiseg.app.session import Session
from napari_semiseg.app.suggestions import Suggestions
from napari_semiseg.app.tile_proposals import TileProposals
from napari_semiseg.plugin.corrector import Corrector
from napari_semiseg.plugin.import_menu import ImportMenu
from napari_semiseg.plugin.keys import Keys
from napari_semiseg.plugin.layers import visible_box
from napari_semiseg.plugin.proposal import Proposal
from napari_semiseg.plugin.slide_view import SlideView
from napari_semiseg.plugin.strokes import Strokes
from napari_semiseg.plugin.suggestion_layer import SuggestionLayer
from napari_semiseg.plugin.supervisor import Supervisor
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.plugin.widgets.export_panel import ExportPanel
from napari_semiseg.plugin.widgets.image_finder import ImageFinder
from napari_semiseg.plugin.widgets.look import plain_button, style_sheet
from napari_semiseg.plugin.widgets.message_line import MessageLine
from napari_semiseg.plugin.widgets.recovery_dialog import RecoveryDialog
from napari_semiseg.plugin.widgets.review_panel import ReviewPanel
from napari_semiseg.plugin.widgets.slide_panel import SlidePanel
from napari_semiseg.plugin.widgets.step import Column, ElidedLabel, StepBox
from napari_semiseg.plugin.widgets.tiles_panel import TilesPanel
from napari_semiseg.plugin.widgets.train_panel import TrainPanel
from napari_semiseg.project.recovery import Recovery

MARGIN = 6
LEAST_WIDTH = 300
"""Pixels; more where something would be cut off."""
DELIVER_MS = 50
SAVE_MS = 700
"""Milliseconds between two looks at what was painted: with the journal's second, nothing is older than two seconds."""


class NucleiDock(QWidget):
    """The guided dock.

    Parameters
    ----------
    napari_viewer : napari viewer
    watch : EngineWatch, optional
        Another engine than this package's own: for tests.
    """

    def __init__(self, napari_viewer: napari.Viewer, *, watch: EngineWatch | None = None) -> None:
        super().__init__()
        self.setObjectName("semisegDock")
        self._docked = self.left = False
        self._engine_message = ""
        self._taken_out = False
        self._unfolded: list[StepBox] = []
        self.viewer = napari_viewer
        self.session = Session()
        self.view = SlideView(self.session, napari_viewer)
        self.keys = Keys()
        self.strokes = Strokes(napari_viewer)
        self.tiles = TileLayers(self.session, napari_viewer)
        self.corrector = Corrector(napari_viewer, self.tiles)
        self.suggestions = Suggestions(self.session)
        self.proposals = TileProposals(self.session)
        self.finder = ImageFinder(self.session, self.view, self)
        self.proposal = Proposal(self.session, napari_viewer, self.view)
        self.suggestion_layer = SuggestionLayer(self.session, napari_viewer, self.view, self.suggestions)
        self.supervisor = Supervisor(self.session.engine, self, watch=watch)
        self.setMinimumWidth(LEAST_WIDTH)
        self._build()
        self._connect()
        self._restyle()
        self.supervisor.start()
        self._show_project()
        self._follow_image()
        for sentence in self.keys.refusals[:1]:
            self._tell_key(sentence)
        for step in self.steps[3:]:
            step.set_open(False)
        self._open_what_is_ready()

    def sizeHint(self) -> QSize:
        """Return the usual size: napari gives the dock what it asks for."""
        return QSize(360, 800)

    # ---- building ----

    def _build(self) -> None:
        self.name = ElidedLabel()
        self.name.setObjectName("semisegProject")
        self.saved = QLabel()
        self.saved.setObjectName("semisegSaved")
        self.saved.setTextFormat(Qt.TextFormat.PlainText)
        self.menu_button = plain_button("☰", "Open or close a project")
        self.menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.slide_panel = SlidePanel(self.session, self.viewer, self.view)
        self.tiles_panel = TilesPanel(
            self.session, self.viewer, self.view, self.tiles, self.suggestions, self.proposals, self.keys, self.strokes
        )
        self.train_panel = TrainPanel(self.session, self.viewer, self.view, self.strokes)
        self.review_panel = ReviewPanel(self.session, self.viewer, self.view, self.tiles, self.keys)
        self.review_panel.by_doubt.step_tile = self.tiles_panel.step
        self.export_panel = ExportPanel(self.session, self.viewer, self.view)
        self.menu_button.setMenu(self._make_menu())
        head = QHBoxLayout()
        head.setContentsMargins(4, 2, 0, 2)
        head.addWidget(self.name, 1)
        head.addWidget(self.saved)
        head.addWidget(self.menu_button)
        self.steps = [StepBox(number, title, panel) for number, (title, panel) in enumerate(self._panels(), start=1)]
        inside = Column()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 2, 0)
        column.setSpacing(6)
        for step in self.steps:
            column.addWidget(step)
        column.addStretch(1)
        self._scroll = scroll = QScrollArea()
        scroll.setObjectName("semisegScroll")
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        inside.least_width_changed.connect(self._keep_wide)
        self.message = MessageLine(self.session)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(MARGIN, 4, MARGIN, 6)
        layout.setSpacing(6)
        layout.addLayout(head)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.message)

    def _panels(self) -> list[tuple[str, QWidget]]:
        return [
            ("Slide", self.slide_panel),
            ("Tiles", self.tiles_panel),
            ("Train", self.train_panel),
            ("Review", self.review_panel),
            ("Export", self.export_panel),
        ]

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.addAction("Open a project…", self.slide_panel.ask_project)
        self._show_folder = menu.addAction("Show the project folder", self._open_folder)
        self._images = menu.addMenu("Images of the project")
        self.import_menu = ImportMenu(self.session, self.viewer, self.view, self.tiles_panel.exchange, self)
        menu.addMenu(self.import_menu)
        menu.addSeparator()
        self._close_project = menu.addAction("Close the project", self._close)
        menu.aboutToShow.connect(self._prepare_menu)
        return menu

    def _connect(self) -> None:
        project = self.session.project
        project.opened.connect(self._show_project)
        project.closed.connect(self._show_project)
        project.saved.connect(self._show_saved)
        project.recovered.connect(self._tell_recovery)
        self.keys.refused.connect(self._tell_key)
        self.session.image_changed.connect(self._follow_image)
        self.session.review.changed.connect(self._open_what_is_ready)
        self.session.exporting.changed.connect(self._open_what_is_ready)
        self.view.changed.connect(self._follow_placement)
        self.view.changed.connect(self._follow_taken_out)
        self.session.engine.events.message.connect(self._note_engine)
        self.viewer.events.theme.connect(self._restyle)
        self.viewer.scene.camera.events.connect(self._follow_view)
        self._deliver_timer = QTimer(self)
        self._deliver_timer.timeout.connect(self._deliver)
        self._deliver_timer.start(DELIVER_MS)
        self._save_timer = QTimer(self)
        self._save_timer.timeout.connect(self._save)
        self._save_timer.start(SAVE_MS)
        owners = [
            self.tiles,
            self.corrector,
            self.keys,
            self.strokes,
            self.view,
            self.proposal,
            self.suggestion_layer,
            self.suggestions,
            self.proposals,
            self.tiles_panel.tool,
            self.train_panel,
            self.review_panel,
            self.export_panel,
        ]
        self._let_go = partial(_let_go, self.session, self.supervisor.watch, owners)
        self.destroyed.connect(self._let_go)
        QCoreApplication.instance().aboutToQuit.connect(self._let_go)

    def event(self, event: QEvent) -> bool:
        """Notice that napari has taken the dock out of its window: it does not delete what was in it."""
        if event.type() == QEvent.Type.ParentChange:
            if self._docked and self.parent() is None:
                self.leave()
            self._docked = self.parent() is not None
        return super().event(event)

    def leave(self) -> None:
        """Save, take our layers out of the viewer, end the engine, and end."""
        self.left = True
        self._deliver_timer.stop()
        self._save_timer.stop()
        self.viewer.events.theme.disconnect(self._restyle)
        self.viewer.scene.camera.events.disconnect(self._follow_view)
        if self.session.project.folder is not None:
            self._close()
        for step in self.steps:
            step.panel.end()
        self.message.end()
        self.proposal.clear()
        self.suggestions.drop()
        self._let_go()
        self.supervisor.close()
        self.deleteLater()

    # ---- showing ----

    def _show_project(self) -> None:
        project = self.session.project
        self.name.setText(project.name or "Nuclei")
        self._show_saved()
        has_image = self.session.image_index is not None
        self.steps[0].set_open(not has_image)

    def _show_saved(self) -> None:
        self.saved.setText(self.session.project.saved_words)

    def _tell_recovery(self, recovery: Recovery) -> None:
        """Say what was found, and show it where there is something to decide."""
        said = recovery.sentences()
        lost = bool(recovery.missing_images)
        first = said[:1] if not lost or len(said) == 1 else [said[0], said[-1]]  # the last one asks for something
        self.session.tell(
            " ".join(first), "warning", details="\n".join(said), actions=self.finder.actions if lost else ()
        )
        if recovery.tiles:
            self.recovery = RecoveryDialog(recovery, self)
            self.recovery.chosen.connect(self.tiles_panel.go_to)
            self.recovery.put_back.connect(partial(self.tiles_panel.exchange.put_back, recovery))
            self.recovery.show()

    def _tell_key(self, sentence: str) -> None:
        self.session.tell(sentence, "warning")

    def _note_engine(self, message: str) -> None:
        self._engine_message = message  # its details follow: they are told together

    def _tell_engine(self) -> None:
        message, self._engine_message = self._engine_message, ""
        if message and not (self.session.notice and self.session.notice.sentence == message):
            self.session.tell(message, "error", details=self.session.engine.detail)

    def _follow_image(self) -> None:
        self._follow_placement()
        self._follow_view()
        self.steps[0].set_open(self.session.image_index is None)

    def _follow_taken_out(self) -> None:
        """Unfold the step with the button that brings the image back, and fold it once it is back."""
        if self.view.taken_out != self._taken_out:
            self._taken_out = self.view.taken_out
            self.steps[0].set_open(self._taken_out or self.session.image_index is None)

    def _follow_placement(self) -> None:
        shown = self.view.placement if self.session.image_index is not None else None
        self.tiles.show(shown)

    def _follow_view(self, event: Any = None) -> None:
        """Note which part of the image is in view."""
        slide, placement = self.view.slide, self.view.placement
        if slide is None or placement is None:  # also where the image was taken out of the viewer
            return
        if self.session.image_index is not None and slide.shape[0]:
            self.session.show_box(visible_box(self.viewer, placement, slide.shape))
            self.tiles.in_view.look_again()

    def _open_what_is_ready(self) -> None:
        """Unfold a later step once, when it has something to do."""
        for step, model in ((self.steps[3], self.session.review), (self.steps[4], self.session.exporting)):
            if step not in self._unfolded and not model.why_not:
                self._unfolded.append(step)
                step.set_open(True)

    def _keep_wide(self, steps: int) -> None:
        """Do not let the dock be narrower than its steps and their scroll bar."""
        beside = self._scroll.verticalScrollBar().sizeHint().width() + 2 * MARGIN
        self.setMinimumWidth(max(LEAST_WIDTH, steps + beside))

    def _restyle(self, event: Any = None) -> None:
        self.setStyleSheet(style_sheet(self.viewer.theme))

    # ---- doing ----

    def _deliver(self) -> None:
        self.view.settle()
        self.session.deliver()
        self._tell_engine()
        self.tiles.bring_back()
        self.tiles_panel.settle()
        if not self.review_panel.peek.peeking:
            self.tiles.settle()

    def _save(self) -> None:
        self.tiles.tick()
        self.session.tick()
        self.tiles_panel.show_waiting()

    def _prepare_menu(self) -> None:
        project = self.session.project
        for action in (self._show_folder, self._close_project):
            action.setEnabled(project.folder is not None)
        self.import_menu.prepare()
        self._images.clear()
        self._images.setEnabled(bool(project.images))
        for index, image in enumerate(project.images):
            action = self._images.addAction(image.name[:80].replace("&", "&&"), partial(self.view.show_image, index))
            action.setCheckable(True)
            action.setChecked(index == self.session.image_index)

    def _open_folder(self) -> None:
        if self.session.project.path:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(Path(self.session.project.path))))

    def _close(self) -> None:
        self.view.close_project()


def _let_go(session: Session, watch: EngineWatch, owners: list[Any], *_: object) -> None:
    """Save what is left, once; widgets and canvas may be gone already, so nothing that shows anything is called."""
    if not owners:
        return
    models = (session.project, session.engine, session.training, session.review, session.exporting)
    for owner in (session, *models, *owners):
        for name, kind in vars(type(owner)).items():
            if isinstance(kind, Signal):
                getattr(owner, name).disconnect()
    for name in session.engine.events:
        session.engine.events[name].disconnect()
    owners[0].tick()
    for owner in owners:
        owner.end()
    owners.clear()
    session.end()
    watch.close()
