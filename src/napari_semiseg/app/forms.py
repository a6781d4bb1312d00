"""Forms described as plain data, from the JSON Schemas that the engine describes itself with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["whole", "number", "yes or no", "choice", "text"]

_UNITS = {"ema": "EMA", "lr": "Learning rate", "mpp": "Pixel size (µm)"}
_LARGEST_WHOLE = 2_147_483_647


@dataclass(frozen=True)
class Field:
    """One row of a form.

    Attributes
    ----------
    name : str
        Name of the option.
    label : str
        What a person reads.
    kind : Kind
    default : object
        Of the option, before a preset changed it; None where it may be left open.
    minimum, maximum : float or None
        Bounds, both included.
    step : float or None
        What a value is a multiple of.
    choices : tuple
        What may be chosen, for ``choice``.
    help : str
        One sentence.
    """

    name: str
    label: str
    kind: Kind
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[Any, ...] = ()
    help: str = ""


def fields(schema: Mapping[str, Any], *, without: Sequence[str] = ()) -> tuple[Field, ...]:
    """Return the rows of a schema, in its order.

    Options of other kinds than a form can show (lists, mappings) are left out: they stay as they are.

    Parameters
    ----------
    schema : mapping
        A JSON Schema of an object, as pydantic writes it.
    without : sequence of str
        Options that are asked for elsewhere.
    """
    found = []
    definitions = schema.get("$defs", {})
    for name, given in schema.get("properties", {}).items():
        row = None if name in without else _field(name, _resolved(given, definitions))
        if row is not None:
            found.append(row)
    return tuple(found)


def _resolved(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Replace a reference by what it means, and "this or nothing" by this."""
    merged = dict(given)
    options = [option for option in given.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        merged = {**options[0], **{key: value for key, value in given.items() if key != "anyOf"}}
    reference = str(merged.get("$ref", ""))
    if reference.startswith("#/$defs/"):
        merged = {**definitions.get(reference.removeprefix("#/$defs/"), {}), **merged}
    return merged


def _field(name: str, given: Mapping[str, Any]) -> Field | None:
    kind = _kind(given)
    if kind is None:
        return None
    whole = kind == "whole"
    minimum, maximum = _bounds(given, whole)
    return Field(
        name=name,
        label=_label(name),
        kind=kind,
        default=given.get("default"),
        minimum=minimum,
        maximum=min(maximum, _LARGEST_WHOLE) if whole and maximum is not None else maximum,
        step=given.get("multipleOf"),
        choices=tuple(given.get("enum", ())),
        help=str(given.get("description", "")),
    )


def _kind(given: Mapping[str, Any]) -> Kind | None:
    if given.get("enum"):
        return "choice"
    kinds: dict[Any, Kind] = {"integer": "whole", "number": "number", "boolean": "yes or no", "string": "text"}
    return kinds.get(given.get("type"))


def _bounds(given: Mapping[str, Any], whole: bool) -> tuple[float | None, float | None]:
    """Return bounds that are included: an excluded one moves inwards by the smallest amount a form can show."""
    inward = 1.0 if whole else 1e-6
    minimum, maximum = given.get("minimum"), given.get("maximum")
    if minimum is None and given.get("exclusiveMinimum") is not None:
        minimum = given["exclusiveMinimum"] + inward
    if maximum is None and given.get("exclusiveMaximum") is not None:
        maximum = given["exclusiveMaximum"] - inward
    return minimum, maximum


def _label(name: str) -> str:
    if name in _UNITS:
        return _UNITS[name]
    words = [_UNITS.get(word, word) for word in name.split("_")]
    first = words[0] if words[0].isupper() else words[0].capitalize()
    return " ".join([first, *words[1:]])
