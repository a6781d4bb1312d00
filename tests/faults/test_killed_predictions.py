"""A prediction that is killed while it writes: unfinished and resumable, or right; never something in between."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.engine import predict as predict_module
from napari_semiseg.engine.control import Control
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.predictor import Predictor
from napari_semiseg.errors import InputError
from napari_semiseg.events import BlockDone, Stop
from napari_semiseg.io.result import Result
from napari_semiseg.io.result_card import result_state

KILLS = 50 if "NAPARI_SEMISEG_SOAK" in os.environ else 4
MOST_WRITES = 60
"""Files that the prediction below writes or renames, about: a kill after more than there are lets it end."""


class Darkness(nn.Module):
    """A network that takes dark for nucleus, over 5 x 5 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.AvgPool2d(5, 1, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        nucleus = 12 * (0.6 - self.smooth(image)[:, 1:2])
        return torch.cat([torch.zeros_like(nucleus), nucleus], dim=1)


def request(image: Path, out: Path) -> PredictRequest:
    return PredictRequest(run="a run", images=(str(image),), out=str(out), device="cpu", block=256)


def be_dark(monkeypatch: pytest.MonkeyPatch | None = None) -> None:
    """Let any run be that network."""
    network = Predictor(Darkness().eval(), ("background", "nucleus"), 4, 2, None, 0.5, 7, torch.device("cpu"))
    if monkeypatch is None:
        predict_module.load_predictor = lambda run, device, turns: network
    else:
        monkeypatch.setattr(predict_module, "load_predictor", lambda run, device, turns: network)


@pytest.fixture
def field(tmp_path: Path, discs) -> Path:
    labels = discs(60, shape=(520, 600), radius=10)
    pixels = np.where(labels[..., None] > 0, (90, 60, 90), (220, 220, 220)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "field.tif", pixels, photometric="rgb")
    return tmp_path / "field.tif"


def contents(path: Path) -> list[np.ndarray]:
    result = Result.open(path)
    return [
        result.read(kind, Box.whole(shape), level)
        for kind in ("confidence", "nuclei")
        for level, shape in enumerate(result.levels)
    ]


@pytest.mark.fault
@pytest.mark.timeout(1800)  # fifty kills, where there are so many
def test_a_prediction_killed_at_any_write_goes_on_to_the_same_result(
    tmp_path: Path,
    field: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """One process forks a child per kill, and each kills itself at that write."""
    moments = sorted(np.random.default_rng().choice(MOST_WRITES, KILLS, replace=False).tolist())
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_killed_predictions import be_dark, predict, request
be_dark()
count = 0
def audit(event, args):
    global count
    opened = event == "open" and str(args[1] or "r")[0] in "wxa"
    if event == "os.rename" or opened:
        if str(args[event == "os.rename"]).startswith(folder):
            count += 1
            if count > last:
                os.kill(os.getpid(), signal.SIGKILL)
for last in {moments}:
    folder = {str(tmp_path)!r} + f"/{{last}}"
    child = os.fork()
    if not child:
        sys.addaudithook(audit)
        list(predict(request(Path({str(field)!r}), Path(folder))))
        os._exit(0)
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    be_dark(monkeypatch)
    list(predict(request(field, tmp_path / "whole")))
    whole = contents(tmp_path / "whole" / "field.ome.zarr")

    states = []
    for moment in moments:
        path = tmp_path / str(moment) / "field.ome.zarr"
        states.append(result_state(path))
        if states[-1] != "complete":
            list(predict(request(field, path.parent)))
        for one, other in zip(contents(path), whole, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"killed at write {moment}, {moments}")
    record_property("kills", f"{KILLS} ({dict(Counter(states))})")
    assert set(states) <= {"missing", "unfinished", "complete"}
    assert "unfinished" in states


class StoppedEarly(Control):
    """Asks for the end after three looks."""

    looks = 0

    def take(self):
        self.looks += 1
        return iter([Stop()] if self.looks == 3 else [])


def test_a_prediction_is_not_gone_on_with_on_another_image(
    tmp_path: Path, field: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_dark(monkeypatch)
    first = list(predict(request(field, tmp_path / "out"), StoppedEarly()))
    assert 0 < sum(isinstance(event, BlockDone) for event in first) < 9
    tifffile.imwrite(field, np.full((520, 600, 3), 200, np.uint8), photometric="rgb")

    with pytest.raises(InputError, match="another image"):
        list(predict(request(field, tmp_path / "out")))
    assert result_state(tmp_path / "out" / "field.ome.zarr") == "unfinished"
