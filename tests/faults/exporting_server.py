"""Exports, each in a process of its own that is forked here and killed at a random moment.

    python exporting_server.py SPEC.json

The file holds ``kills``, ``seed`` and ``jobs``: for each a ``name`` and what is ``asked`` of the export. Every job is
first done as a whole, into the folder ``whole`` beside its others, and then killed as often, into ``0``, ``1``, ….
Prints one JSON line a job. What takes long before the first byte is written (torch, and the translation of a network)
is done once, before the forks.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from napari_semiseg.engine.export import export
from napari_semiseg.engine.export_job import ExportRequest


def started(asked: dict[str, Any], folder: Path) -> int:
    """Fork a process that exports into a folder, and return its id."""
    folder.mkdir(parents=True)
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        list(export(ExportRequest(**{**asked, "out": str(folder / asked["out"])})))
        status = 0
    finally:
        os._exit(status)


def killed(child: int, after_s: float) -> bool:
    """Kill a process after some time; say whether that was before its end."""
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)  # not waited for yet, so its id is still its own
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def translate_once() -> None:
    """Let a network be translated to ONNX here, for all children."""
    from napari_semiseg.engine import onnx_file

    translate, kept = onnx_file._exported, []

    def once(predictor: Any) -> Any:
        kept.extend([] if kept else [translate(predictor)])
        return kept[0]

    onnx_file._exported = once


def prepare(asked: dict[str, Any]) -> None:
    """Load what a job needs before it is forked."""
    if asked["to"] in ("safetensors", "onnx", "bioimageio"):
        import torch

        from napari_semiseg.engine import export_model, onnx_file

        torch.set_num_threads(1)
        if asked["to"] != "safetensors":
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401

            onnx_file._exported(export_model.load_predictor(Path(asked["source"]), torch.device("cpu")))


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    moments = random.Random(spec["seed"])
    translate_once()
    for job in spec["jobs"]:
        folder, asked = Path(spec["folder"]) / job["name"], job["asked"]
        prepare(asked)
        begun = time.monotonic()
        _, status = os.waitpid(started(asked, folder / "whole"), 0)
        seconds = time.monotonic() - begun
        hits = 0
        for number in range(spec["kills"]):
            hits += killed(started(asked, folder / str(number)), moments.uniform(0, seconds))
        said = {"name": job["name"], "status": status, "seconds": round(seconds, 2), "before_the_end": hits}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
