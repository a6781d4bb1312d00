"""Blocks predicted by the workers of a Dask cluster."""

import numpy as np
import pytest

from napari_semiseg.blocks import Box
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import BlockDone
from napari_semiseg.io.ome_zarr import Result

distributed = pytest.importorskip("distributed", reason="Dask's scheduler is not installed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def scheduler():
    """Run a scheduler and a worker with two threads in this process; return the address."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_gives_the_same_result_as_this_process(quick_request, small_dataset, tmp_path, scheduler):
    list(train(quick_request(steps=2)))
    image = small_dataset / "images" / "field-3.tif"
    results = []
    for name, address in (("here", None), ("there", scheduler)):
        request = PredictRequest(
            run=str(tmp_path / "run"),
            images=(str(image),),
            out=str(tmp_path / name),
            device="cpu",
            block=64,
            scheduler=address,
        )
        events = list(predict(request))
        assert sum(isinstance(event, BlockDone) for event in events) == 4
        result = Result.open(tmp_path / name / "field-3.ome.zarr")
        results.append((result.confidence(Box(0, 0, 128, 128)), result.nuclei(Box(0, 0, 128, 128))))
    assert np.abs(results[0][0].astype(int) - results[1][0]).max() <= 1
    assert results[1][1].shape == (128, 128)


def test_a_scheduler_that_does_not_answer_is_said_in_a_sentence(quick_request, small_dataset, tmp_path, monkeypatch):
    from napari_semiseg.engine import cluster

    monkeypatch.setattr(cluster, "PATIENCE_S", 0.3)
    list(train(quick_request(steps=1)))
    image = str(small_dataset / "images" / "field-3.tif")
    request = PredictRequest(
        run=str(tmp_path / "run"), images=(image,), out=str(tmp_path / "out"), scheduler="tcp://127.0.0.1:9"
    )
    with pytest.raises(InputError, match="No Dask scheduler answers"):
        list(predict(request))
    assert not (tmp_path / "out").exists()
