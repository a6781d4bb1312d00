"""The base of every set of options: frozen, closed, validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from napari_semiseg.errors import InputError


class Config(BaseModel):
    """Options that cannot change after they were checked, and that refuse a name they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def checked(cls, values: Mapping[str, Any], where: str) -> Self:
        """Build from untrusted values.

        Parameters
        ----------
        values : mapping
            Option names and values; strings are converted to the option's type.
        where : str
            Where the values come from, for the message ("--set", a file's path).

        Raises
        ------
        InputError
            In one sentence that names the first wrong option and what it may be.
        """
        try:
            return cls.model_validate(dict(values) if isinstance(values, Mapping) else values)
        except ValidationError as error:
            raise InputError(_sentence(cls, error.errors()[0], where)) from None


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """Split the command line's ``key=value`` words.

    Raises
    ------
    InputError
        If a word has no ``=`` or a key comes twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, not '{text}': write for example --set lr=0.001.")
        if key in values:
            raise InputError(f"--set gives '{key}' twice: keep one of them.")
        values[key] = value
    return values


def _sentence(cls: type[Config], error: ErrorDetails, where: str) -> str:
    said = error.get("ctx", {}).get("error")
    if isinstance(said, InputError):  # of a validator, which knows better what to do
        return str(said)
    name = ".".join(str(part) for part in error["loc"]) or "the whole"
    if error["type"] == "extra_forbidden":
        known = ", ".join(sorted(cls.model_fields))
        return f"There is no option '{name}' in {where}: the options are {known}."
    return f"Option '{name}' in {where} cannot be {error['input']!r:.80}: {error['msg'].rstrip('.').lower()}."
