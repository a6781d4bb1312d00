"""Keep the results of ``napari-semiseg benchmark`` in `results/`, with their command and no place of this machine.

    python benchmarks/keep.py BENCH NAME --words "Two trainings at a time, one thread each."

BENCH is the folder of a benchmark; ``results/NAME.json`` and ``results/NAME.md`` are written, plots not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PLACES = ("dataset", "splits", "test")
"""Options that name a file or folder: its name stays, where it lies does not."""
FLAGS = ("methods", "variants", "fractions", "seeds", "minutes", "steps")
FLAGS += ("preset", "splits", "part", "test", "by", "classes")


def main() -> None:
    """Copy the table and the figures."""
    options = _options()
    results = json.loads((options.bench / "results.json").read_text(encoding="utf-8"))
    request = results["request"]
    for name in PLACES:
        request[name] = Path(request[name]).name if request[name] else request[name]
    request["out"] = "BENCH"
    heading, _, conditions, rest = (options.bench / "table.md").read_text(encoding="utf-8").split("\n", 3)
    said = f"{conditions} {options.words} `{command(request)}`".replace("  ", " ")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.md").write_text(f"{heading}\n\n{said}\n{rest}", encoding="utf-8")
    (RESULTS / f"{options.name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def command(request: dict[str, Any]) -> str:
    """Return the command that asks for the same."""
    words = [f"napari-semiseg benchmark {request['dataset']}"]
    for name in FLAGS:
        value = request.get(name)
        if value is True:
            words.append(f"--{name}")
        elif name == "variants":
            words += [f'--variant "{variant}"' for variant in value or ()]
        elif name == "seeds" and isinstance(value, list) and len(value) == 1:
            words.append(f"--seeds {value[0]},")  # without the comma it would be a count
        elif value:
            several = value if isinstance(value, list) else [value]
            words.append(f"--{name} {','.join(map(str, several))}")
    return " ".join([*words, "--device cpu", "--out BENCH"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="the folder of the benchmark")
    parser.add_argument("name", help="name of what is written")
    parser.add_argument("--words", default="", help="what else a reader should know of the machine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
