"""The verb ``methods``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

NEEDS = {"needed": "labels", "used": "labels or none", "unused": "no labels"}


def methods(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with the schema of every option.")] = False,
) -> None:
    """List the methods: what each needs, where it comes from, its options, and its variants.

    For people, and for programs:

        napari-semiseg methods
        napari-semiseg methods --json
    """
    from napari_semiseg.engine.describe import describe_methods

    described = describe_methods()
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    typer.echo("\n\n".join(map(_paragraph, described)))


def _paragraph(method: dict[str, Any]) -> str:
    network = f"; brings its own network, {method['network']}" if method["network"] else ""
    if method["network"] == "none":
        network = "; trains no network"
    classes = "nucleus or not" if method["classes"] == "two" else "any number of classes"
    lines = [
        f"{method['name']}: {method['title']}",
        f"  {method['summary']}",
        f"  needs {NEEDS[method['labels']]}, {classes}{network}",
        *(f"  {work}" for work in method["references"]),
        *([f"  variants: {'; '.join(method['variants'])}"] if method["variants"] else []),
        *(_option(name, field) for name, field in method["options"].get("properties", {}).items()),
    ]
    return "\n".join(line for line in lines if line.strip())


def _option(name: str, field: dict[str, Any]) -> str:
    return f"    --set {name}={json.dumps(field.get('default'))}  {field.get('description', '')}".rstrip()
