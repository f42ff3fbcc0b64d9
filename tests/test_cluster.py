"""Dask workers: what they find in their environment, what happens when one dies, who may be connected to."""

import os
import signal
from pathlib import Path

import distributed
import pytest
import torch

from aimfair import cluster
from aimfair.environment import AimfairError


def seen(name):
    return os.environ.get(name), torch.get_num_threads(), os.getpid()


def die_once(marker):
    if not Path(marker).exists():
        Path(marker).write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_are_alone_with_their_part_of_the_machine_and_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "cores", lambda: 2)
    before = dict(os.environ)
    with cluster.local_cluster(2) as client:
        addresses = [w["host"] for w in client.scheduler_info()["workers"].values()]
        assert addresses == ["127.0.0.1"] * 2
        silent, threads, pid = client.submit(seen, "AIMFAIR_PROGRESS").result()
        assert (silent, threads) == ("off", 1) and pid != os.getpid()
        assert client.submit(die_once, str(tmp_path / "died")).result() != int((tmp_path / "died").read_text())
        with pytest.raises(distributed.KilledWorker):
            client.submit(die).result()
    assert {name: os.environ.get(name) for name in before} == before


def test_each_gpu_has_a_worker(monkeypatch):
    assert [cluster._one_gpu(n, 0) for n in range(2)] == [{}, {}]
    assert [cluster._one_gpu(n, 2)["CUDA_VISIBLE_DEVICES"] for n in range(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert [cluster._one_gpu(n, 2)["CUDA_VISIBLE_DEVICES"] for n in range(2)] == ["3", "GPU-5"]


def test_only_a_scheduler_that_answers_and_hands_out_one_task_at_a_time(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", "1s")
    with pytest.raises(AimfairError, match="no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        cluster.connect("tcp://127.0.0.1:1")
    local = {"n_workers": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(threads_per_worker=1, **local) as made, cluster.connect(made.scheduler_address) as c:
        assert c.submit(int, "3").result() == 3
    with (
        distributed.LocalCluster(threads_per_worker=2, **local) as made,
        pytest.raises(AimfairError, match="1 Dask workers would compute several tasks at once"),
    ):
        cluster.connect(made.scheduler_address)
