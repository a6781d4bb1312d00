"""How the dock looks, in the colors of napari's own theme."""

from __future__ import annotations

from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QToolButton

GOOD = "#009e73"
WARN = "#e69f00"
BAD = "#d55e00"
"""Okabe and Ito's green, orange and vermilion, which the color-blind tell apart."""


def style_sheet(theme_name: str) -> str:
    """Return the style sheet of the dock for a theme of napari's."""
    theme = get_theme(theme_name)
    c = {
        name: getattr(theme, name).as_hex()
        for name in ("background", "foreground", "primary", "secondary", "highlight", "text", "icon", "current")
    }
    dark = theme.type == "dark"
    soft = "rgba(255, 255, 255, 150)" if dark else "rgba(0, 0, 0, 150)"
    card = "rgba(255, 255, 255, 9)" if dark else "rgba(255, 255, 255, 110)"
    accent, accent_text = ("#3d7fd9", "#ffffff") if dark else ("#2463b8", "#ffffff")
    return f"""
    #semisegDock QLabel {{ background: transparent; }}
    #semisegScroll, #semisegScroll > QWidget > QWidget {{ background: transparent; border: none; }}
    #semisegProject {{ font-weight: 600; font-size: 11pt; }}
    #semisegSaved, #semisegSummary, #semisegHint {{ color: {soft}; }}
    #semisegHint {{ font-size: 8pt; }}
    #semisegStep {{ background: {card}; border: 1px solid {c["primary"]}; border-radius: 6px; }}
    #semisegNumber {{
        background: {c["primary"]}; color: {c["text"]};
        border-radius: 10px; font-weight: 600; font-size: 8pt;
    }}
    #semisegNumber[done="true"] {{ background: {GOOD}; color: white; }}
    #semisegTitle {{ border: none; background: transparent; font-weight: 600; font-size: 10pt; padding: 1px 2px; }}
    #semisegReason {{ color: {soft}; }}
    QPushButton#semisegMain {{
        background: {accent}; color: {accent_text};
        font-weight: 600; padding: 6px 10px; border-radius: 4px;
    }}
    QPushButton#semisegMain:hover {{ background: {accent}; border: 1px solid {c["text"]}; }}
    QPushButton#semisegMain:disabled {{ background: {c["foreground"]}; color: {soft}; }}
    QPushButton#semisegMain:checked {{ background: {WARN}; color: black; }}
    QPushButton#semisegLink {{
        background: transparent; border: none;
        text-align: left; padding: 2px; text-decoration: underline;
    }}
    QToolButton#semisegPen {{
        background: transparent; border: 1px solid {c["primary"]};
        border-radius: 4px; padding: 2px 6px 2px 4px;
    }}
    QToolButton#semisegPen:hover {{ background: {c["foreground"]}; }}
    QToolButton#semisegPen:checked {{ background: {c["primary"]}; border: 1px solid {c["highlight"]}; }}
    QToolButton#semisegPlain {{ background: transparent; border: none; border-radius: 3px; padding: 2px 4px; }}
    QToolButton#semisegPlain:hover {{ background: {c["primary"]}; }}
    QToolButton::menu-indicator {{ image: none; width: 0; }}
    QListWidget#semisegStrip {{ background: transparent; border: none; }}
    QListWidget#semisegStrip::item {{ padding: 0; margin: 0; border-radius: 4px; color: {c["text"]}; }}
    QTableWidget#semisegTable {{ background: transparent; border: none; }}
    QTableWidget#semisegTable::item:selected {{ background: {accent}; color: {accent_text}; }}
    QListWidget#semisegStrip::item:selected {{ background: {accent}; }}
    #semisegMessage {{ background: {c["foreground"]}; border-radius: 4px; border-left: 3px solid {c["highlight"]}; }}
    #semisegMessage[level="info"] {{ border-left: 3px solid {accent}; }}
    #semisegMessage[level="warning"] {{ border-left: 3px solid {WARN}; }}
    #semisegMessage[level="error"] {{ border-left: 3px solid {BAD}; }}
    #semisegCard {{ background: {c["foreground"]}; border-radius: 4px; }}
    """


def main_button(text: str, tooltip: str) -> QPushButton:
    """Make the one main button of a step."""
    button = QPushButton(text)
    button.setObjectName("semisegMain")
    button.setToolTip(tooltip)
    button.setCursor(Qt.CursorShape.PointingHandCursor)
    return button


def plain_button(text: str, tooltip: str) -> QToolButton:
    """Make a small button without a frame."""
    button = QToolButton()
    button.setObjectName("semisegPlain")
    button.setText(text)
    button.setToolTip(tooltip)
    button.setAutoRaise(True)
    return button


def framed_button(text: str, tooltip: str = "") -> QToolButton:
    """Make a small button with a thin frame."""
    button = plain_button(text, tooltip)
    button.setObjectName("semisegPen")
    return button


def toggle_button(text: str, tooltip: str) -> QToolButton:
    """Make a small button that stays down until it is pressed again."""
    button = framed_button(text, tooltip)
    button.setCheckable(True)
    button.setCursor(Qt.CursorShape.PointingHandCursor)
    return button


def sentences(name: str) -> QLabel:
    """Make a label of wrapped plain text, whatever it holds; `name` is what the style sheet calls it."""
    label = QLabel()
    label.setObjectName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    return label


def hint() -> QLabel:
    """Make a dim line that is only there while it says something; see `say`."""
    label = sentences("semisegHint")
    label.hide()
    return label


def say(label: QLabel, words: str) -> None:
    """Have a label say something; with "" it goes away."""
    if words != label.text():
        label.setText(words)
        label.setVisible(bool(words))


def dot_icon(color: str, *, ring: bool = False) -> QIcon:
    """Draw a disc, or a ring for what is not a nucleus."""
    pixmap = QPixmap(28, 28)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    if ring:
        painter.setPen(QPen(QColor(color), 5))
        painter.drawEllipse(QRectF(5, 5, 18, 18))
    else:
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(color))
        painter.drawEllipse(QRectF(3, 3, 22, 22))
    painter.end()
    return QIcon(pixmap)


def draw_mark(painter: QPainter, status: str, color: str, place: QRectF) -> None:
    """Draw a tile's status: full, half, empty, or crossed out; told apart without color too."""
    painter.save()
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(0, 0, 0, 170), 1))
    painter.setBrush(QColor(20, 20, 20, 200))
    painter.drawEllipse(place)
    inner = place.adjusted(2.5, 2.5, -2.5, -2.5)
    painter.setPen(QPen(QColor(color), 1.5))
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.drawEllipse(inner)
    painter.setBrush(QColor(color))
    if status == "complete":
        painter.drawEllipse(inner)
    elif status == "sparse":
        painter.drawPie(inner, 90 * 16, 180 * 16)
    elif status == "excluded":
        painter.drawLine(QPointF(inner.left(), inner.bottom()), QPointF(inner.right(), inner.top()))
    painter.restore()


def repolish(widget: Any) -> None:
    """Have a widget look up its style again, after a property of it has changed."""
    widget.style().unpolish(widget)
    widget.style().polish(widget)
    widget.update()
