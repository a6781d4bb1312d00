"""Tables that are read from the program while the documentation is built, so that they cannot become wrong.

A line of a page that holds nothing but ``{{ name argument }}`` is replaced: ``{{ options cdcl }}`` by the options of a
method, ``{{ presets cdcl }}``, ``{{ variants cdcl }}``, ``{{ request train }}``, ``{{ networks }}``, ``{{ scores }}``,
``{{ keys }}``, and ``{{ results cdcl }}`` by what was measured, as it lies in `benchmarks/results/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
REQUESTS = {
    "train": "engine.requests:TrainRequest",
    "run": "engine.run:RunRequest",
    "predict": "engine.predict:PredictRequest",
    "split": "engine.split:SplitRequest",
    "propose": "engine.propose:ProposeRequest",
    "doubtful": "engine.review:DoubtfulRequest",
    "compare": "engine.compare:CompareRequest",
    "region": "engine.review:RegionRequest",
    "suggest": "engine.suggest:SuggestRequest",
    "export": "engine.export:ExportRequest",
    "inspect": "engine.inspect:InspectRequest",
    "demo": "engine.demo:DemoRequest",
    "benchmark": "engine.benchmark:BenchmarkRequest",
    "crops": "data.sampler:SamplerConfig",
    "optimizer": "engine.optim:OptimConfig",
}
_CALL = re.compile(r"^\{\{ (?P<name>\w+)(?: (?P<argument>[\w-]+))? \}\}$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables of a page (mkdocs calls this)."""
    return _CALL.sub(_filled, markdown)


def _filled(call: re.Match[str]) -> str:
    arguments = [call["argument"]] if call["argument"] else []
    return TABLES[call["name"]](*arguments)


def options(method: str) -> str:
    """List the options of a method."""
    from napari_semiseg.methods._registry import METHODS

    return _fields(METHODS[method].Config)


def request(verb: str) -> str:
    """List the options of a verb's request."""
    return _fields(resolve_name(f"napari_semiseg.{REQUESTS[verb]}"))


def presets(method: str) -> str:
    """List what each preset chooses for a method on a CPU and on a GPU."""
    from napari_semiseg.engine.presets import plan

    rows = []
    for preset in ("quick", "standard", "best", "paper"):
        slow, fast = plan(preset, method, "cpu"), plan(preset, method, "cuda")
        length = f"{slow.minutes:g} minutes" if slow.minutes else f"{slow.epochs} epochs"
        length = "one look at the labels" if slow.network == "none" else length
        for place, chosen in [("any", slow)] if slow == fast else [("CPU", slow), ("GPU", fast)]:
            others = ", ".join(f"{key} {value}" for key, value in chosen.options.items()) or "none"
            rows.append((f"`{preset}`", length, place, f"`{chosen.network}`", others))
    return _table(("preset", "length", "device", "network", "options that differ from their defaults"), rows)


def variants(method: str) -> str:
    """List the variants of a method, each by where it differs from the preset `paper`."""
    from napari_semiseg.engine.presets import PAPER, variants_of

    whole = PAPER[method]
    rows = []
    for name, row in variants_of(method).items():
        changed = {key: value for key, value in row.options.items() if whole.options.get(key) != value}
        named = [] if row.network == whole.network else [f"`--network {row.network}`"]
        named += [f"`--set {key}={value}`" for key, value in changed.items()]
        rows.append((f"`{name}`", " ".join(named) or "nothing"))
    return _table(("`--variant`", "what it adds to `--preset paper`"), rows)


def networks() -> str:
    """List the networks and where they deviate from the papers'."""
    import torch

    from napari_semiseg.nn._registry import NETWORKS, build_network

    rows = []
    for spec in NETWORKS.values():
        with torch.device("meta"):  # counted, never filled
            network = build_network(spec.name)
        weights = sum(parameter.numel() for parameter in network.parameters())
        reach = "the whole image" if network.reach is None else f"{network.reach} px"
        rows.append((f"`{spec.name}`", spec.title, f"{weights:,}", reach, " ".join(spec.deviations) or "—"))
    return _table(("name", "network", "parameters", "reach", "where ours deviates from the paper's"), rows)


def scores() -> str:
    """List every score that `evaluate` prints."""
    from napari_semiseg.engine.evaluate import DEFINITIONS

    return _table(("score", "what it is"), [(f"`{name}`", text) for name, text in DEFINITIONS.items()])


def empty_cases() -> str:
    """Say what `evaluate` does where there is nothing to compare."""
    from napari_semiseg.engine.evaluate import EMPTY_CASES

    return EMPTY_CASES


def keys() -> str:
    """List the keys of a layer of annotation."""
    from napari_semiseg.plugin.keys import ACTIONS

    return _table(("key", "what it does"), [(f"`{action.key.replace('-', '+')}`", action.words) for action in ACTIONS])


def results(method: str) -> str:
    """Show what was measured for a method beside the threshold, or say that nothing was."""
    parts = [measured(path, method) for path in sorted(RESULTS.glob("*.json"))]
    shown = [part for part in parts if part]
    return "\n\n".join(shown) or "Not measured yet: `benchmarks/results/` holds no file with this method."


def benchmark(name: str) -> str:
    """Show a kept benchmark whole."""
    return measured(RESULTS / f"{name}.json")


BARS = ("hematoxylin_threshold", "random_forest", "supervised")
"""Rows that every other one stands beside."""
SCORES = {
    "dice": "Dice per image",
    "dice_pooled": "Dice pooled",
    "mdice_two_class": "mDice, two classes",
    "miou_two_class": "mIoU, two classes",
    "aji": "AJI",
}


def measured(path: Path, method: str = "") -> str:
    """Return the rows of a kept benchmark under its own heading and words; "" for any other file.

    With `method`, only its rows and those that it has to be compared with, and "" where it has none.
    """
    from napari_semiseg.engine.benchmark_budget import budget_of
    from napari_semiseg.engine.benchmark_report import CLASS_COLUMNS, mean_and_spread, name_of

    rows = _rows(path)
    if not rows:
        return ""
    scores = SCORES | (CLASS_COLUMNS if any("mdice" in row["scores"] for row in rows) else {})
    kinds = list(dict.fromkeys((name_of(row, code="`"), row["labeled"], budget_of(row)) for row in rows))
    if method and method not in [row["method"] for row in rows]:
        return ""
    several = len({budget for *_, budget in kinds} - {None}) > 1
    heading, _, conditions = path.with_suffix(".md").read_text(encoding="utf-8").split("\n", 3)[:3]
    lines = []
    for kind in kinds:
        name, labeled, budget = kind
        own = [row for row in rows if (name_of(row, code="`"), row["labeled"], budget_of(row)) == kind]
        if method and own[0]["method"] not in (*BARS, method):
            continue
        figures = (mean_and_spread([row["scores"].get(score) for row in own]) for score in scores)
        given = [str(budget or "")] if several else []
        lines.append((name, {"0": "none", "1": "all"}.get(labeled, labeled), *given, *figures, str(len(own))))
    table = _table(("", "labels", *(["budget"] if several else []), *scores.values(), "runs"), lines)
    return f"**{heading.lstrip('# ')}** (`benchmarks/results/{path.name}`)\n\n{conditions}\n\n{table}"


def default_beside_threshold() -> str:
    """Show what one click gave on each set and with so many labels: its longest training, beside the threshold.

    Learned from another set, from whole images, or with classes is a line of its own. Trainings with other options than
    the program has today are marked.
    """
    from napari_semiseg.engine.benchmark_budget import budget_of
    from napari_semiseg.engine.benchmark_report import mean_and_spread
    from napari_semiseg.methods._registry import AUTO

    kept: dict[tuple[str, str, str], dict[tuple[str, Any], list[dict[str, Any]]]] = {}  # by file and budget
    bars: dict[str, dict[str, float]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        for row in _rows(path):
            if row["method"] == BARS[0]:
                bars[_images(row["scored_on"])] = row["scores"]
            elif row["method"] == AUTO.name:
                trainings = kept.setdefault((_task(row), row["labeled"], row["by"]), {})
                trainings.setdefault((path.stem, budget_of(row)), []).append(row)
    lines = []
    for task, labeled, by in sorted(kept, key=lambda each: (each[0], -_amount(each[1]), each[2])):
        trainings = kept[task, labeled, by]
        (name, _), rows = max(trainings.items(), key=lambda file: min(row["steps"] for row in file[1]))
        images = _images(rows[0]["scored_on"])
        dice, aji = (mean_and_spread([row["scores"][score] for row in rows]) for score in ("dice", "aji"))
        bar = [f"{bars[images][score]:.3f}" for score in ("dice", "aji")] if images in bars else ["", ""]
        file = f"[{name}](benchmarks/results/{name}.md)" + (" †" if any(map(_is_older, rows)) else "")
        words = {"0": "none", "1": "all"}.get(
            labeled, f"{labeled} {by}" if labeled.isdigit() else f"{labeled} of the {by}"
        )
        steps = str(round(sum(row["steps"] for row in rows) / len(rows)))
        lines.append((task, words, bar[0], dice, bar[1], aji, steps, str(len(rows)), file))
    head = ("images", "labels", "threshold: Dice", "*Train*: Dice", "threshold: AJI", "*Train*: AJI", "steps", "runs")
    return _table((*head, "file"), lines)


def _is_older(row: dict[str, Any]) -> bool:
    """Return whether a training of what *Train* takes had a network or options that the program no longer gives it."""
    from napari_semiseg.data.sampler import SamplerConfig
    from napari_semiseg.engine.presets import plan
    from napari_semiseg.methods._registry import AUTO

    chosen = plan(row["budget"]["preset"], AUTO.name, "cpu")
    today = AUTO.Config().model_dump() | SamplerConfig().model_dump() | chosen.options
    had = row["options"]["options"] | row["options"]["sampler"]
    return row["network"] != chosen.network or any(today.get(name, value) != value for name, value in had.items())


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a kept benchmark, each with what they have in common; none of any other file."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    rows, asked = (kept.get("rows", []), kept.get("request", {})) if isinstance(kept, dict) else ([], {})
    whole = all(isinstance(row, dict) and {"method", "labeled", "scores"} <= row.keys() for row in rows)
    shared = {"by": asked.get("by", "cells"), "classes": asked.get("classes", False)}
    return [row | shared for row in rows] if whole else []


def _task(row: dict[str, Any]) -> str:
    """Name what was scored, and where it was learned and into what it was parted where that is not the usual."""
    learned = row.get("learned_from", row["scored_on"])["dataset"]
    elsewhere = f", learned on {learned}" if learned != row["scored_on"]["dataset"] else ""
    return _images(row["scored_on"]) + elsewhere + (", in classes" if row["classes"] else "")


def _images(scored: dict[str, Any]) -> str:
    """Name what was scored: the data set, and the file that parts it where that is not its own."""
    own = scored["splits"].removesuffix(".json")
    return scored["dataset"] if own.startswith("splits") else own.replace("-", ", ", 1)


def _amount(labeled: str) -> float:
    """Return a number that grows with the labels: counts of cells first, then shares of all."""
    return float(labeled) if labeled.isdigit() and labeled != "1" else 1e6 * float(Fraction(labeled))


def _fields(model: type[BaseModel]) -> str:
    rows = [
        (f"`{name}`", _kind(field), _default(field), field.description or "")
        for name, field in model.model_fields.items()
    ]
    return _table(("option", "may be", "default", "what it is"), rows)


def _kind(field: FieldInfo) -> str:
    """Say in words what an option may be."""
    choices = _choices(field.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    names = {int: "whole number", float: "number", bool: "yes or no", str: "text", dict: "options", tuple: "list"}
    kinds = [names[kind] for kind in names if kind in _types(field.annotation)]
    kinds = kinds[:1] if "list" not in kinds else ["list"]
    bounds = [_bound(limit) for limit in field.metadata]
    return " ".join([*kinds, ", ".join(bound for bound in bounds if bound)]).strip()


def _choices(annotation: object) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)] if not _is_list(annotation) else []


def _is_list(annotation: object) -> bool:
    return get_origin(annotation) in (tuple, list, dict)


def _types(annotation: object) -> set[object]:
    found = {annotation, get_origin(annotation)}
    for part in get_args(annotation) if not _is_list(annotation) else ():
        found |= _types(part)
    return found


def _bound(limit: object) -> str:
    words = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}
    return ", ".join(f"{word} {getattr(limit, name):,}" for name, word in words.items() if hasattr(limit, name))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, float):
        return f"{value:g}"
    return "—" if value in (None, "", (), {}) else str(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {line} |" for line in lines)])


TABLES: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (options, request, presets, variants, networks, scores, empty_cases, keys, results, benchmark)
}
