"""Pages made while the documentation is built: the command line from its own help, the API from its docstrings."""

from __future__ import annotations

import inspect
from pathlib import Path

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_semiseg"
LAYERS = {
    "engine": "What a verb does: each is a generator of events.",
    "methods": "One file per method, which reads like its paper.",
    "data": "Images, crops, views and batches.",
    "nn": "Networks and what methods build from.",
    "losses": "Functions of tensors, with their equations.",
    "postprocess": "From confidence to nuclei.",
    "metrics": "Scores, with their definitions.",
    "io": "Images and results on disk.",
    "project": "The project folder.",
    "app": "What the dock shows, without Qt.",
}

ELSEWHERE = {("engine", "control")}
"""Modules that another page shows."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    for layer, words in LAYERS.items():
        files.append(File.generated(config, f"reference/{layer}.md", content=api_page(layer, words)))
    return files


def api_page(layer: str, words: str) -> str:
    """List every public module of a layer."""
    modules = [path.stem for path in sorted((PACKAGE / layer).glob("*.py"))]
    public = [name for name in modules if not name.startswith("_") and (layer, name) not in ELSEWHERE]
    if layer == "methods":
        public = ["_base", *public]
    entries = "\n".join(f"::: napari_semiseg.{layer}.{name}\n" for name in public)
    return f"# {layer}\n\n{words}\n\n{entries}"


def command_line() -> str:
    """Write the verbs with their examples and options."""
    from napari_semiseg.cli.app import app

    main = typer.main.get_command(app)
    parts = ["# Command line", inspect.cleandoc(main.help or "")]
    for name, verb in main.commands.items():
        parts += [f"## {name}", inspect.cleandoc(verb.help or ""), _options(verb)]
    return "\n\n".join(parts) + "\n"


def _options(verb: typer.core.TyperCommand) -> str:
    rows = ["| | |", "|---|---|"]
    for parameter in verb.params:
        names = " ".join(parameter.opts) if parameter.param_type_name == "option" else ""
        metavar = "" if getattr(parameter, "is_flag", False) else parameter.metavar or parameter.name.upper()
        what = " ".join(word for word in (names, metavar) if word).replace("|", "\\|")
        rows.append(f"| `{what}` | {(parameter.help or '').replace('|', chr(92) + '|')} |")
    return "\n".join(rows)
