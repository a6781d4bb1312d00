"""Keys of the layers that a person paints in.

Bound on our own layers only, so that they mean something exactly where they are useful, and taken back with them. Which
key does what is chosen on this plugin's page of napari's preferences (`configurations` in the manifest).
"""

from __future__ import annotations

from collections.abc import Callable, KeysView, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ref

from app_model.types import KeyCode
from napari.settings import get_plugin_settings
from napari.utils.key_bindings import coerce_keybinding
from psygnal import Signal

from napari_semiseg.plugin.layers import unwrapped


@dataclass(frozen=True)
class Action:
    """Something that a key does.

    Attributes
    ----------
    name : str
        As in the manifest.
    key : str
        The usual one.
    does : str
        In words, for tooltips and the guide.
    on_result : str
        What it does while the layer of a result is selected, in words; "" where it means the same there or nothing.
    """

    name: str
    key: str
    does: str
    on_result: str = ""

    @property
    def words(self) -> str:
        """All that it does."""
        return f"{self.does}; with a layer of the result selected: {self.on_result}" if self.on_result else self.does


ACTIONS = (
    Action("next_tile", "N", "go to the next tile", "to the next nucleus in doubt, while you go through them"),
    Action("previous_tile", "P", "go to the tile before", "to the nucleus in doubt before"),
    Action("complete", "Shift-C", "accept what is still proposed and mark the tile complete, or sparse again"),
    Action("propose", "G", "get proposed nuclei into the tile, to be corrected"),
    Action("correct", "C", "correct nuclei by gestures, or paint again"),
    Action("accept", "A", "accept the proposed nucleus below the mouse", "accept the nucleus in doubt"),
    Action("reclass", "K", "give the nucleus below the mouse the next class; one that is proposed is accepted by it"),
    Action("delete", "D", "delete the nucleus below the mouse", "reject the nucleus in doubt"),
    Action("take_back", "Control-Z", "take back the last word on a nucleus in doubt"),
    Action("new_nucleus", "M", "begin a new nucleus with the next stroke"),
    Action("background", "B", "paint background, or nuclei again"),
    Action("suggest", "S", "go to the next place worth a tile; once more to add it"),
    Action("peek", "J", "see the image alone, for as long as it is held"),
)

_UNDO = ("Control-Z", "Control-Shift-Z")
_BESIDE_TILES = ("take_back",)
"""Actions whose keys no layer has that is painted in."""
_NO_KEYS = (None, KeyCode.UNKNOWN, KeyCode.Shift, KeyCode.Ctrl, KeyCode.Alt, KeyCode.Meta)

Calls = Mapping[str, Callable[[Any], object]]


class Keys:
    """Which key does what, and the layers that have them.

    Keys that mean nothing to napari, one that another action has, and those of undo and redo are not taken: the action
    keeps its usual one.

    Attributes
    ----------
    refusals : tuple of str
        Which keys that were chosen are not taken, and why: a sentence each.
    """

    changed = Signal()
    """Some key is another one."""
    refused = Signal(str)
    """A key that was chosen just now is not taken: the sentence that says why."""

    def __init__(self) -> None:
        self._settings = _settings()
        self._bound: list[tuple[ref[Any], KeysView[str], Calls]] = []
        self._keys, self.refusals = _chosen(self._settings)
        if self._settings is not None:
            self._settings.events.connect(self._renew)

    def of(self, name: str) -> str:
        """Return the key of an action, as people write it: "Shift+C"."""
        return str(coerce_keybinding(self._keys[name]))

    @property
    def words(self) -> str:
        """What every key does, a line each."""
        return "\n".join(f"{self.of(action.name)}: {action.words}" for action in ACTIONS)

    def bind(self, layer: Any, calls: Calls) -> None:
        """Give a layer its keys; each is called with the layer. The layer is not kept alive."""
        layer = unwrapped(layer)
        self._bound = [entry for entry in self._bound if entry[0]() not in (None, layer) or entry[1] != calls.keys()]
        self._bound.append((ref(layer), calls.keys(), calls))
        for name, call in calls.items():
            layer.bind_key(self._keys[name], call, overwrite=True)

    def end(self) -> None:
        """Take all keys back."""
        if self._settings is not None:
            self._settings.events.disconnect(self._renew)
            self._settings = None
        self._release()
        self._bound.clear()

    def _release(self) -> None:
        for layer, calls in self._living():
            for name in calls:
                layer.bind_key(self._keys[name], None, overwrite=True)

    def _living(self) -> list[tuple[Any, Calls]]:
        return [(layer, calls) for entry, _, calls in self._bound if (layer := entry()) is not None]

    def _renew(self, event: Any = None) -> None:
        before = self.refusals
        chosen, self.refusals = _chosen(self._settings)
        for sentence in self.refusals:
            if sentence not in before:
                self.refused.emit(sentence)
        if chosen == self._keys:
            return
        self._release()
        self._keys = chosen
        for layer, calls in self._living():
            for name, call in calls.items():
                layer.bind_key(chosen[name], call, overwrite=True)
        self.changed.emit()


def _settings() -> Any:
    """Return our page of the preferences; None where napari does not know this plugin, as in a script."""
    try:
        return get_plugin_settings("napari-semiseg").keys
    except (KeyError, AttributeError):
        return None


def _chosen(settings: Any) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the key of each action, and a sentence for each key that was chosen and is not taken."""
    usual = {action.name: action.key for action in ACTIONS}
    wanted = {name: str(getattr(settings, name, "") or key) for name, key in usual.items()}
    keys = {name: key if _is_key(key) and _may_be(name, key) else usual[name] for name, key in wanted.items()}
    while clash := _clash(keys, usual):
        keys[clash] = usual[clash]
    return keys, tuple(_refusal(name, wanted[name], keys) for name in keys if wanted[name] != keys[name])


def _refusal(name: str, wanted: str, keys: Mapping[str, str]) -> str:
    """Say why an action does not get the key that was chosen for it."""
    does = {action.name: action.does.partition(",")[0].partition(";")[0] for action in ACTIONS}
    if not _is_key(wanted):
        why = "napari knows no such single key"
    elif not _may_be(name, wanted):
        why = "it undoes or redoes strokes"
    else:
        pressed = coerce_keybinding(wanted)
        owners = [does[other] for other, key in keys.items() if other != name and coerce_keybinding(key) == pressed]
        why = f"it is the key to {owners[0] if owners else 'something else'}"
    kept = coerce_keybinding(keys[name])
    return f"The key “{wanted[:20]}” is not taken to {does[name]}, since {why}: that stays with {kept}."


def _clash(keys: Mapping[str, str], usual: Mapping[str, str]) -> str:
    """Return the last action that was given the key of another one; "" where each has its own."""
    pressed = {name: coerce_keybinding(key) for name, key in keys.items()}
    twice = [name for name, key in pressed.items() if list(pressed.values()).count(key) > 1]
    given = [name for name in twice if keys[name] != usual[name]]
    return given[-1] if given else ""


def _is_key(text: str) -> bool:
    try:
        binding = coerce_keybinding(text)
    except (ValueError, IndexError):
        return False
    return len(binding.parts) == 1 and binding.part0.key not in _NO_KEYS


def _may_be(name: str, key: str) -> bool:
    """Whether an action may have a key: where one paints, undo and redo stay napari's."""
    return name in _BESIDE_TILES or coerce_keybinding(key) not in map(coerce_keybinding, _UNDO)


def ignoring_layer(call: Callable[[], object]) -> Callable[[Any], None]:
    """Make a key's call of something that needs no layer; napari asks such calls for their names."""

    def press(layer: Any) -> None:
        call()

    return press
