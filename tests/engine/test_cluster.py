"""Blocks predicted by the workers of a Dask cluster."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from napari_semiseg.blocks import Box
from napari_semiseg.engine import cluster as cluster_module
from napari_semiseg.engine.infer import BlockwiseNetwork
from napari_semiseg.engine.predict import PredictRequest, predict
from napari_semiseg.engine.train import train
from napari_semiseg.errors import InputError
from napari_semiseg.events import BlockDone
from napari_semiseg.io.images import open_image
from napari_semiseg.io.result import Result

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


@pytest.mark.fault
def test_a_worker_that_is_killed_changes_nothing(quick_request, small_dataset, tmp_path):
    list(train(quick_request(steps=2)))
    asked = {
        "run": str(tmp_path / "run"),
        "images": (str(small_dataset / "images" / "field-3.tif"),),
        "device": "cpu",
        "block": 64,
    }
    list(predict(PredictRequest(out=str(tmp_path / "here"), **asked)))

    with cluster_module.local_workers(2) as address, distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        pids = client.run(os.getpid)
        killed = False
        for event in predict(PredictRequest(out=str(tmp_path / "there"), scheduler=address, **asked)):
            if isinstance(event, BlockDone) and not killed:
                os.kill(next(iter(pids.values())), signal.SIGKILL)
                killed = True
    assert killed
    one, other = (Result.open(tmp_path / name / "field-3.ome.zarr") for name in ("here", "there"))
    whole = Box(0, 0, 128, 128)
    assert np.abs(one.confidence(whole).astype(int) - other.confidence(whole)).max() <= 1
    assert one.card.facts["nuclei"] == other.card.facts["nuclei"]


class Vanished:
    """What a client gives out when all workers are gone."""

    def submit(self, *_, **__):
        return self

    def nthreads(self):
        return {}

    def cancelled(self):
        return False

    def result(self, timeout):
        raise TimeoutError


class Interrupted(Vanished):
    """What Dask gives out whose timeout meets the answer: an error of its own, and the answer when asked again."""

    def __init__(self, lost):
        self.asked, self.submitted, self.lost = 0, 0, lost

    def submit(self, *_, **__):
        self.submitted += 1
        return self

    def cancelled(self):
        return self.lost and self.submitted == 1

    def nthreads(self):
        return {"worker": 1}

    def result(self, timeout):
        self.asked += 1
        if self.asked == 1:
            raise UnboundLocalError("cannot access local variable 'result'")
        return np.full((1, 64, 64), 7, np.uint8)


@pytest.mark.parametrize("lost", [False, True])
def test_an_answer_that_dask_drops_is_asked_for_again_and_given_out_again_if_it_is_lost(
    quick_request, small_dataset, lost
):
    image = open_image(small_dataset / "images" / "field-3.tif")
    network = BlockwiseNetwork(nn.Identity(), torch.device("cpu"), 1, 0)
    client = Interrupted(lost)
    ((_, values),) = cluster_module.Cluster(client, "run", "cpu", 1).predict(network, image, [Box(0, 0, 64, 64)])
    assert (values == 7).all()
    assert client.submitted == 1 + lost


def test_a_cluster_without_workers_is_not_waited_for_without_end(quick_request, small_dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "WITHOUT_WORKERS_S", 0.05)
    image = open_image(small_dataset / "images" / "field-3.tif")
    network = BlockwiseNetwork(nn.Identity(), torch.device("cpu"), 1, 0)
    work = cluster_module.Cluster(Vanished(), "run", "cpu", 1)

    with pytest.raises(InputError, match=r"workers of the cluster are gone.*again to go on"):
        list(work.predict(network, image, [Box(0, 0, 64, 64)]))


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
