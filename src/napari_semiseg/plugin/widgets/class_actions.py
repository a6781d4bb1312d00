"""Adding, renaming and removing classes of nuclei."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QInputDialog, QMenu

from napari_semiseg.app.session import Session
from napari_semiseg.errors import InputError
from napari_semiseg.plugin.tile_layers import TileLayers
from napari_semiseg.project.schema import MAX_CLASS_NAME, ClassSpec, with_class
from napari_semiseg.project.tile_annotation import BACKGROUND


class ClassActions:
    """Changes the classes of the project, from a menu.

    Parameters
    ----------
    session : Session
    layers : TileLayers
    menu : QMenu
        The actions are added at its end.
    """

    def __init__(self, session: Session, layers: TileLayers, menu: QMenu) -> None:
        self.session, self.layers, self._menu = session, layers, menu
        menu.addAction("Add a class of nuclei…", self._add)
        self.renaming = menu.addAction("Rename the class being painted…", self._rename)
        self.removing = menu.addAction("Remove the last class", self._remove)
        menu.aboutToShow.connect(self._prepare)

    def _prepare(self) -> None:
        classes = self.session.project.classes
        self.renaming.setEnabled(self.layers.pen.kind != BACKGROUND)
        self.removing.setText(f"Remove the class “{classes[-1].name[:40].replace('&', '&&')}”")
        self.removing.setVisible(len(classes) > 1)

    def _add(self) -> None:
        name = self._ask_name()
        if name:
            self._set(with_class(self.session.project.classes, name))

    def _rename(self) -> None:
        classes = list(self.session.project.classes)
        index = max(0, self.layers.pen.kind - BACKGROUND - 1)
        name = self._ask_name(classes[index].name)
        if name:
            classes[index] = ClassSpec(name=name.strip()[:MAX_CLASS_NAME], color=classes[index].color)
            self._set(classes)

    def _ask_name(self, now: str = "") -> str:
        """Return the name that somebody gives a class; "" where nobody does."""
        parent = self._menu.parentWidget()
        name, given = QInputDialog.getText(parent, "A class of nuclei", "Name of the class", text=now)
        return name if given and name.strip() else ""

    def _remove(self) -> None:
        """Remove the class that was added last: the numbers of the others stay what they are."""
        self.layers.tick()
        *classes, gone = self.session.project.classes
        if self._set(classes):
            self.session.tell(
                f"The class {gone.name} is removed: nothing was painted in it.",
                actions=(("Bring it back", lambda: self._set([*self.session.project.classes, gone])),),
            )

    def _set(self, classes: Sequence[ClassSpec]) -> bool:
        """Give the project its classes; whether it could have them."""
        try:
            self.session.project.set_classes(classes)
        except InputError as error:
            self.session.tell(str(error), "warning")
            return False
        return True
