"""What README, guides and examples say exists, exists; and they speak of this project only."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"), *(ROOT / "sample_data").rglob("*.md")]
)
WRITTEN = sorted([*PAGES, *(ROOT / "examples").glob("*.py"), *DOCS.rglob("*.py"), ROOT / "mkdocs.yml"])
"""All that is written by hand for a reader."""

SHELL = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
FORBIDDEN = {
    r"\bissue #\d+": "the number of an issue",
    r"\bpull request\b": "a pull request",
    r"/(?:work|tmp|root)/|/home/\w": "a path of somebody's machine",
    r"\.\.[/]shared": "a folder beside the project",
    r"\bthis session\b|\bhelpers?\b|\bsub-?agents?\b|\bLLM\b": "who wrote it",
    r"\bTODO\b|\bFIXME\b|\bXXX\b|\btbd\b": "something that is not done",
    r"\bcolour|\bgrey\b|\blabelled\b|\boptimis|\bneighbour": "British spelling",
    r"\bsimply\b|\bobviously\b|\bof course\b": "a word that belittles the reader",
}


def pages(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(ROOT).as_posix())


def load(name: str) -> ModuleType:
    """Import a file of `docs/`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return load("_tables")


@pytest.fixture(scope="module")
def settable() -> set[str]:
    """Every name that `--set` takes with one method or another."""
    from napari_semiseg.data.sampler import SamplerConfig
    from napari_semiseg.engine.optim import OptimConfig
    from napari_semiseg.methods._registry import METHODS

    configs = [SamplerConfig, OptimConfig, *(method.Config for method in METHODS.values())]
    return {name for config in configs for name in config.model_fields}


@pytest.fixture(scope="module")
def verbs() -> dict[str, set[str]]:
    """The verbs of the command line, each with its options."""
    from napari_semiseg.cli.app import app

    group = typer.main.get_command(app)
    found = {name: {option for p in verb.params for option in p.opts} for name, verb in group.commands.items()}
    return {name: {option for option in options if option.startswith("--")} for name, options in found.items()}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield every command in the shell blocks of a page that calls this program."""
    for block in SHELL.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(" | ")[0], comments=True)
            if words[:1] == ["napari-semiseg"]:
                yield words[1:]


@pages(PAGES)
def test_every_command_that_is_shown_can_be_given(path, verbs, settable):
    for verb, *words in commands(path):
        assert verb in verbs, f"there is no verb {verb}"
        for word in words:
            assert not word.startswith("--") or word in {*verbs[verb], "--help"}, f"{verb} has no option {word}"
        for option, value in itertools.pairwise(words):
            assert option != "--set" or value.partition("=")[0] in settable, f"there is no option {value}"


def test_the_shell_blocks_show_every_verb_but_the_one_for_programs(verbs):
    shown = {command[0] for page in PAGES for command in commands(page)}

    assert set(verbs) - {"serve", "methods"} <= shown


@pages(PAGES)
def test_every_option_that_is_named_in_a_text_exists(path, verbs, settable):
    known = {option for options in verbs.values() for option in options} | {"--help"}
    text = path.read_text(encoding="utf-8")
    named = {word for code in CODE.findall(text) for word in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)}
    others = {"--events", "--repeat", "--version", "--draft"}  # of pytest and towncrier
    others |= {"--standalone", "--nproc-per-node"}  # of torchrun

    assert named <= known | others
    for name in re.findall(r"--set (\w+)=", text):
        assert name in settable


@pages(PAGES)
def test_no_link_inside_the_project_is_dead(path):
    for target in LINK.findall(CODE.sub("", path.read_text(encoding="utf-8"))):
        file, _, _ = target.partition("#")
        if "://" in target or not file:
            continue
        made = DOCS / "reference" in (path.parent / file).resolve().parents  # written while the pages are built
        assert made or (path.parent / file).exists(), f"{target} does not exist"


@pages(WRITTEN)
def test_nothing_is_said_that_does_not_belong_here(path):
    text = path.read_text(encoding="utf-8")
    for pattern, what in FORBIDDEN.items():
        found = re.search(pattern, text, re.IGNORECASE)
        assert not found, f"{path.name} holds {what}: {found[0] if found else ''}"


@pages(PAGES)
def test_every_table_that_a_page_asks_for_can_be_made(path, tables):
    text = tables.on_page_markdown(path.read_text(encoding="utf-8"))

    assert "{{" not in CODE.sub("", text)
    for line in text.splitlines():
        if line.startswith("| `"):
            assert line.endswith("|"), f"a row is broken: {line}"


def test_every_method_has_a_page_that_says_when_how_and_how_well():
    from napari_semiseg.methods._registry import METHODS

    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), (ROOT / "README.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        text = (DOCS / "methods" / f"{name}.md").read_text(encoding="utf-8")
        parts = ["**Assumes**", "**Use it**", "**Needs**", "$$", "## When it fails", "## Options", "## Figures"]
        parts += [f"{{{{ options {name} }}}}"] if method.Config.model_fields else []
        for part in [*parts, f"{{{{ results {name} }}}}"]:
            assert part in text, f"{name}.md lacks {part}"
        assert all(f"methods/{name}.md" in page for page in listed), f"{name}.md is not listed"


def test_a_table_of_options_tells_bounds_choices_and_defaults(tables):
    rows = tables.options("cdcl").splitlines()

    assert "| `temperature` | number > 0, ≤ 10 | 0.1 | Temperature of the contrast; the code's default. |" in rows
    assert any(row.startswith("| `rule` | `paper`, `sum`, `pixel`, `random` | paper |") for row in rows)


def test_the_readme_holds_the_figures_that_were_measured_and_no_others():
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("write_figures", DOCS / "scripts" / "write_figures.py")
        assert spec is not None
        assert spec.loader is not None
        figures = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(figures)
    finally:
        sys.path.remove(str(DOCS))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert figures.with_figures(readme) == readme, "run python docs/scripts/write_figures.py"
    assert not re.search(r"\b0\.\d{3}\b", readme.partition(figures.BEGIN)[0] + readme.partition(figures.END)[2])


def test_measured_rows_show_mean_and_spread_beside_the_threshold(tables, tmp_path, monkeypatch):
    scores = dict.fromkeys(tables.SCORES, 0.5)
    rows = [{"method": "hematoxylin_threshold", "labeled": "0", "scores": scores}]
    rows += [{"method": "csl", "labeled": "0", "scores": {**scores, "dice": value}} for value in (0.6, 0.8)]
    rows += [{"method": "cdcl", "labeled": "15", "scores": scores}]
    (tmp_path / "set.json").write_text(tables.json.dumps({"rows": rows}), encoding="utf-8")
    (tmp_path / "set.md").write_text("# A set, scored on val\n\nOne thread.\n", encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    shown = tables.results("csl")

    assert "A set, scored on val" in shown
    assert "| `hematoxylin_threshold` | none | 0.500 |" in shown
    assert "| `csl` | none | 0.700 ± 0.141 |" in shown
    assert "cdcl" not in shown
    assert tables.results("supervised").startswith("Not measured yet")


@pytest.mark.parametrize("other", [{"caution": 3.0}, {"network": "small_unet"}, {"crops": 8}], ids=str)
def test_the_readme_shows_the_longest_training_of_the_default_beside_the_threshold(
    tables, tmp_path, monkeypatch, other
):
    scored = {"dataset": "set", "splits": "splits.json", "part": "test"}

    def row(method, labeled, dice, steps, network="narrow_stain_unet", crops=3, **options):
        scores = dict.fromkeys(tables.SCORES, dice)
        chosen = {"options": options, "sampler": {"crop": 160, "batch_labeled": crops}}
        how = {"options": chosen, "network": network, "budget": {"preset": "quick"}}
        return {"method": method, "labeled": labeled, "scores": scores, "steps": steps, "scored_on": scored, **how}

    short = [
        row("hematoxylin_threshold", "0", 0.5, 1),
        row("stain_guided", "15", 0.6, 100),
        row("cdcl", "15", 0.9, 999),
    ]
    long = [row("stain_guided", "15", dice, 800) for dice in (0.7, 0.8)]
    long += [row("stain_guided", "0", 0.65, 800, **other)]
    for name, rows in (("short", short), ("long", long)):
        (tmp_path / f"{name}.json").write_text(tables.json.dumps({"rows": rows}), encoding="utf-8")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    fifteen, none = tables.default_beside_threshold().splitlines()[2:]

    assert fifteen.startswith("| set | 15 cells | 0.500 | 0.750 ± 0.071 | 0.500 | 0.750 ± 0.071 | 800 | 2 | [long](")
    assert fifteen.endswith("(benchmarks/results/long.md) |")
    assert none.startswith("| set | none | 0.500 | 0.650 |")
    assert none.endswith("(benchmarks/results/long.md) † |"), "other options than today's are marked"


def test_the_readme_tells_apart_where_and_from_what_the_default_has_learned(tables, tmp_path, monkeypatch):
    def kept(name, learned, **request):
        how = {"options": {"options": {}, "sampler": {}}, "network": "any", "budget": {"preset": "quick"}, "steps": 1}
        scored = {"dataset": "set", "splits": "splits.json", "part": "test"}
        where = {"scored_on": scored, "learned_from": scored | {"dataset": learned}}
        rows = [
            {"method": method, "labeled": labeled, "scores": dict.fromkeys(tables.SCORES, 0.5), **where, **how}
            for method, labeled in (("hematoxylin_threshold", "0"), ("stain_guided", "1/8"))
        ]
        (tmp_path / f"{name}.json").write_text(tables.json.dumps({"rows": rows, "request": request}), encoding="utf-8")

    kept("cells", "set", by="cells")
    kept("images", "set", by="images")
    kept("other", "another", by="cells")
    kept("several", "set", by="cells", classes=True)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)

    lines = [line.split(" | ") for line in tables.default_beside_threshold().splitlines()[2:]]

    assert [(line[0].strip("| "), line[1]) for line in lines] == [
        ("set", "1/8 of the cells"),
        ("set", "1/8 of the images"),
        ("set, in classes", "1/8 of the cells"),
        ("set, learned on another", "1/8 of the cells"),
    ]
    assert all(line[2] == "0.500" for line in lines), "the threshold learns nowhere"


def test_equations_become_mathml_that_needs_nothing_from_elsewhere():
    pytest.importorskip("latex2mathml", reason="the tools for the documentation are not installed")
    pytest.importorskip("griffe", reason="the tools for the documentation are not installed")
    equations = load("_equations")

    page = equations.on_page_content(r'<p>With <span class="arithmatex">\(a &lt; b_1\)</span>.</p>')

    assert "<math" in page
    assert "<msub>" in page
    assert "arithmatex" not in page
    assert (
        equations.to_markdown("One.\n\n.. math:: a +\n    b\n\nTwo :math:`c`.")
        == "One.\n\n$$\na +\n    b\n$$\n\nTwo $c$."
    )
