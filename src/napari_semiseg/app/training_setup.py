"""What a training is to be: chosen from what there is, said in words, changed where somebody wants to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psygnal import Signal

from napari_semiseg.app.forms import Field, fields
from napari_semiseg.app.words import about

if TYPE_CHECKING:
    from napari_semiseg.app.session import Session

Preset = Literal["quick", "standard", "best"]
PRESETS: tuple[Preset, ...] = ("quick", "standard", "best")

_OWN = ("images", "dataset", "project", "out", "labels", "classes", "labeled", "subimage", "splits", "split")
_ELSEWHERE = (*_OWN, "validation", "method", "network", "preset", "variant", "device", "set", "resume")
_SHORT = ("propose", "suggest", "split")
"""Jobs that are over in seconds: a training waits for them."""
_LONG = {"train": "A training", "predict": "A segmentation", "export": "An export"}


class TrainingSetup:
    """The choices for the next training.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    preset : {"quick", "standard", "best"}
    method, network, device : str
        A name, or ``auto``.
    request : dict
        Further options of the request that somebody set (minutes, seed …).
    options : dict
        Options of method, crops and optimizer that somebody set.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self._session = session
        self.preset: Preset = "quick"
        self.method = self.network = self.device = "auto"
        self.request: dict[str, Any] = {}
        self.options: dict[str, Any] = {}

    # ---- choosing ----

    def choose(self, **choices: str) -> None:
        """Set `preset`, `method`, `network` or `device`; another method drops options that only the old one has."""
        for name, value in choices.items():
            if name not in ("preset", "method", "network", "device"):
                raise ValueError(f"'{name}' is not chosen here")
            setattr(self, name, value)
        known = {field.name for rows in self.groups().values() for field in rows}
        if known:
            self.options = {name: value for name, value in self.options.items() if name in known}
        self.changed.emit()

    def set_option(self, name: str, value: Any) -> None:
        """Set an option of the request, the method, the crops or the optimizer; None leaves it to the preset."""
        home = self.request if name in self._asked else self.options
        home.pop(name, None)
        if value is not None:
            home[name] = value
        self.changed.emit()

    @property
    def _asked(self) -> set[str]:
        """Names of the options of a request, as far as they are known."""
        return {field.name for field in self.request_fields()}

    # ---- what can be chosen ----

    @property
    def description(self) -> Mapping[str, Any]:
        """What the engine says it can do; empty until it has."""
        return self._session.engine.description

    @property
    def methods(self) -> list[tuple[str, str]]:
        """Methods, each with its title."""
        return [(method["name"], method["title"]) for method in self.description.get("methods", ())]

    @property
    def networks(self) -> list[tuple[str, str]]:
        """Networks, each with its title."""
        return [(network["name"], network["title"]) for network in self.description.get("networks", ())]

    @property
    def devices(self) -> list[tuple[str, str]]:
        """Devices that passed their test, each with its title."""
        return [(device["name"], device["title"]) for device in self._session.engine.devices if device["ok"]]

    def request_fields(self) -> tuple[Field, ...]:
        """Return the options of a request that are the user's to set."""
        schema = self.description.get("requests", {}).get("train", {})
        return fields(schema, without=_ELSEWHERE)

    def groups(self) -> dict[str, tuple[Field, ...]]:
        """Return the further options by group: run, method, crops, optimizer."""
        method = self._described(self.method_name)
        found = {
            "Run": self.request_fields(),
            "Method": fields(method.get("options", {})),
            "Crops": fields(self.description.get("sampler", {})),
            "Optimizer": fields(self.description.get("optimizer", {})),
        }
        return {title: rows for title, rows in found.items() if rows}

    # ---- what is chosen ----

    @property
    def labeled_tiles(self) -> int:
        """Tiles that a run would learn from."""
        project = self._session.project
        judges = project.validation
        return sum(tile.status in ("sparse", "complete") and tile.id not in judges for tile in project.tiles)

    @property
    def method_name(self) -> str:
        """The method that a run would use."""
        return "stain_guided" if self.method == "auto" else self.method

    @property
    def words(self) -> str:
        """What a run would be, in a few words: "auto · few labels · CPU"."""
        chosen = "auto" if self.method == "auto" else dict(self.methods).get(self.method, self.method)
        labels = "few labels" if self.uses_labels(self.method_name) and self.labeled_tiles else "no labels"
        network = "" if self.network == "auto" else dict(self.networks).get(self.network, self.network)
        return " · ".join(part for part in (chosen, network, labels, self.device_words) if part)

    @property
    def device_words(self) -> str:
        """Name of the device that would be used; "" until devices are known."""
        passed = [device for device in self._session.engine.devices if device["ok"]]
        if self.device != "auto":
            passed = [device for device in passed if device["name"] == self.device]
        best = min(passed, key=lambda device: device.get("step_s") or 0.0, default=None)
        return str(best["title"]).partition(",")[0] if best else ""

    def minutes(self, preset: str) -> float | None:
        """Return the minutes of a preset; None until that is known."""
        known = {entry["name"]: entry["minutes"] for entry in self.description.get("presets", ())}
        return known.get(preset)

    def preset_words(self, preset: str) -> str:
        """Return a preset as time: "quick · about 3 min"."""
        minutes = self.minutes(preset)
        return preset if minutes is None else f"{preset} · {about(minutes)}"

    def uses_labels(self, method: str) -> bool:
        """Whether a method learns from labels."""
        return self._labels_of(method) != "unused"

    def _labels_of(self, method: str) -> str:
        return str(self._described(method).get("labels", "used" if method == "stain_guided" else "needed"))

    @property
    def why_not(self) -> str:
        """Why no training can be begun as it is set up, in words; "" if one can."""
        return self.why_none or self._method_problem()

    @property
    def why_none(self) -> str:
        """Why nothing can be trained now, whatever is set up: a run that goes on has its own method; "" if it can."""
        session = self._session
        project, engine = session.project, session.engine
        if project.folder is None:
            return "Begin with step 1: a training needs a project to keep its results in."
        if project.read_only:
            return "The project is open read-only, so nothing can be trained in it."
        if not project.images:
            return "The project holds no image yet: add one in step 1."
        long = next((job for job in engine.jobs if job.verb not in _SHORT), None)
        if long is not None:
            return f"{_LONG.get(long.verb, 'Another job')} is still running: wait for its end or stop it."
        if engine.status == "failed":
            return "The engine is not running: press “Restart the engine”."
        return ""

    def _method_problem(self) -> str:
        method = self._described(self.method_name)
        title = method.get("title", self.method_name)
        if self._labels_of(self.method_name) == "needed" and not self.labeled_tiles:
            return f"“{title}” learns from labels: paint nuclei in a tile first, or choose another method."
        one_class = method.get("classes") == "two" and self.uses_labels(self.method_name)
        if one_class and len(self._session.project.classes) > 1:
            return f"“{title}” knows one class of nuclei only: choose another method, or auto."
        return ""

    def args(self, out: Path) -> dict[str, Any]:
        """Return the request of a training into a run folder."""
        asked: dict[str, Any] = {"project": str(self._session.project.path), "out": str(out), "preset": self.preset}
        for name in ("method", "network", "device"):
            if getattr(self, name) != "auto":
                asked[name] = getattr(self, name)
        known = {field.name for rows in self.groups().values() for field in rows}
        early = {name: value for name, value in self.options.items() if name in self._asked}  # set before it was known
        options = {name: value for name, value in self.options.items() if name in known and name not in early}
        return {**asked, **early, **self.request, **({"set": options} if options else {})}

    def _described(self, method: str) -> Mapping[str, Any]:
        return next((known for known in self.description.get("methods", ()) if known["name"] == method), {})
