"""One plain sentence for the user, with what can be done about it."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QFrame, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_semiseg.app.session import Notice, Session
from napari_semiseg.plugin.widgets.look import plain_button, repolish

_MOST = 400
GOES_MS = 30_000
"""Milliseconds after which what is good to know, and no more, goes by itself."""


class MessageLine(QFrame):
    """Shows what the session tells, as plain text, until it is closed or something else is told."""

    def __init__(self, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("semisegMessage")
        self._session = session
        self._details = ""
        self.label = QLabel()
        self.label.setTextFormat(Qt.TextFormat.PlainText)
        self.label.setWordWrap(True)
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.copy = plain_button("copy details", "Copy the details to the clipboard, for whoever mends it")
        self.copy.clicked.connect(self._copy)
        self.close_button = plain_button("✕", "Close this message")
        self.close_button.clicked.connect(session.hush)
        self._buttons = QHBoxLayout()
        self._buttons.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.label, 1)
        row.addWidget(self.close_button, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 5, 4, 5)
        layout.setSpacing(2)
        layout.addLayout(row)
        layout.addLayout(self._buttons)
        self._goes = QTimer(self)
        self._goes.setSingleShot(True)
        self._goes.setInterval(GOES_MS)
        self._goes.timeout.connect(session.hush)
        session.told.connect(self.show_notice)
        self.show_notice(session.notice)

    def show_notice(self, notice: Notice | None) -> None:
        """Show a sentence, or nothing."""
        self.setVisible(notice is not None)
        self._goes.stop()
        while self._buttons.count():
            widget = self._buttons.takeAt(0).widget()
            if widget is not None and widget is not self.copy:
                widget.deleteLater()
        if notice is None:
            return
        sentence = " ".join(notice.sentence.split())
        self.label.setText(sentence if len(sentence) <= _MOST else f"{sentence[: _MOST - 1]}…")
        self._details = notice.details or (sentence if len(sentence) > _MOST else "")
        for text, call in notice.actions:
            button = QPushButton(text)
            button.clicked.connect(self._closing(call))
            self._buttons.addWidget(button)
        self._buttons.addWidget(self.copy)
        self._buttons.addStretch(1)
        self.copy.setVisible(bool(self._details))
        if notice.level == "info":
            self._goes.start()
        self.setProperty("level", notice.level)
        repolish(self)

    def _closing(self, call):
        def run() -> None:
            self._session.hush()
            call()

        return run

    def _copy(self) -> None:
        QApplication.clipboard().setText(f"{self.label.text()}\n\n{self._details}")

    def end(self) -> None:
        """Hear nothing more."""
        self._goes.stop()
        self._session.told.disconnect(self.show_notice, missing_ok=True)
