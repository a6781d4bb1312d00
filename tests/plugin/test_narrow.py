"""Nothing in the dock is cut off, however narrow the dock is made."""

from __future__ import annotations

from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QAbstractButton, QLabel, QScrollArea


def cut_off(dock) -> list[str]:
    """Name what reaches beyond the right edge of what can be seen of the dock."""
    scroll = dock.findChild(QScrollArea, "semisegScroll")
    edge = scroll.viewport().width()
    shown = [one for kind in (QLabel, QAbstractButton) for one in scroll.findChildren(kind) if one.isVisible()]
    return [one.text() for one in shown if one.mapTo(scroll.viewport(), QPoint(one.width(), 0)).x() > edge]


def test_in_a_dock_that_is_made_as_narrow_as_can_be_nothing_is_cut_off(open_window, tissue, tmp_path):
    hands = open_window(tissue)
    dock = hands.dock
    dock.view.choose_target(tmp_path / "case.semiseg")
    hands.press(dock.slide_panel.start)
    hands.wait(lambda: dock.view.started, "the start")
    hands.project.add_tile(0, center=(200, 200))
    window = dock.window()
    window.resize(1000, 700)
    frame = dock.parentWidget()
    for step in dock.steps:
        step.set_open(True)
        hands.rest()
        window.resizeDocks([frame], [100], Qt.Orientation.Horizontal)
        hands.rest()
        assert cut_off(dock) == []
    assert dock.width() < 400


def test_what_a_step_has_come_to_is_cut_between_letters_where_it_is_too_long(open_window):
    hands = open_window()
    label = hands.dock.steps[2].summary
    label.setText("W" * 60)
    for width in range(170, 200):
        label.setFixedWidth(width)
        hands.rest(0.02)
        image = label.grab().toImage()
        ink = {image.pixelColor(label.contentsRect().x(), y).lightness() for y in range(image.height())}
        assert len(ink) == 1, f"the first letter is cut where the line is {width} pixels wide"
