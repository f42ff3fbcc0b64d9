"""Several processes draw one list: the same images, nothing twice, nothing lost when one is killed."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial

import pytest
import torch
from tiny_pipelines import BANK, PAIR, SETTINGS, alike, stable_diffusion

from aimfair.environment import AimfairError
from aimfair.generate import diffusion
from aimfair.generate.drawing import sharing


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals are those of POSIX")
def test_two_processes_of_which_one_is_killed_draw_what_one_draws(tmp_path):
    folder = stable_diffusion(tmp_path)
    todo, pool = diffusion.jobs(BANK, 15, PAIR), tmp_path / "two"
    killed = []

    def kill_one():
        while not killed:
            if len(diffusion.read_manifest(pool)) >= 2 and multiprocessing.active_children():
                (victim, *_) = multiprocessing.active_children()
                os.kill(victim.pid, signal.SIGKILL)
                killed.append((victim, len(diffusion.missing(todo, pool))))
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    load = partial(diffusion.load_pipeline, str(folder))
    manifest = sharing.generate(load, todo, pool, device="cpu", processes=2, batch_size=2, **SETTINGS)
    killer.join()
    ((victim, then_missing),) = killed
    assert victim.exitcode == -signal.SIGKILL and 0 < then_missing < len(todo)
    rows = diffusion.read_manifest(pool)
    assert manifest == pool / "manifest.csv" and diffusion.missing(todo, pool) == []
    assert sorted(rows["path"]) == sorted(job.path for job in todo)  # no gap, nothing twice
    diffusion.generate(load("cpu"), todo, tmp_path / "one", batch_size=30, **SETTINGS)
    assert alike(pool, tmp_path / "one")


def test_each_process_has_its_part_of_the_list(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        place = tmp_path / "meeting"
        parts = pool.starmap(part, [(list(range(7)), 0, place), (list(range(7)), 1, place)], chunksize=1)
    assert parts == [[0, 1, 2, 3], [4, 5, 6]]


def part(todo, rank, place):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", OMP_NUM_THREADS="1")
    return sharing.share(todo, rank, 2, place)


def test_one_process_per_gpu_unless_told(monkeypatch):
    assert sharing.how_many("cpu", None) == 1 and sharing.how_many("cpu", 3) == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert sharing.how_many("cuda", None) == 4 and sharing.how_many("cuda:1", None) == 1
    assert sharing._devices("cuda", 6) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]
    assert sharing._devices("cuda:1", 2) == ["cuda:1", "cuda:1"]
    with pytest.raises(AimfairError, match="--processes 0: at least one is needed"):
        sharing.how_many("cpu", 0)
