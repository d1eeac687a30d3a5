"""No work is lost: training that is killed, and gone on with."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mixtura import MDNRegressor, MixturaError, MixturaWarning, checkpoint, datasets, load

X, Y = datasets.make_inverse_sine(600)
SETTINGS = {"preset": "plain", "hidden_layer_sizes": (16,), "max_epochs": 40, "random_state": 0, "n_restarts": 2}


def small(**parameters) -> MDNRegressor:
    return MDNRegressor(3, **{**SETTINGS, **parameters})


def assert_same(first: MDNRegressor, second: MDNRegressor) -> None:
    """Weights and course, bit for bit."""
    pairs = zip(first.networks_[0].parameters(), second.networks_[0].parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)
    for name in ("train_nll", "valid_nll", "restart_nlls", "events", "best_epoch", "component_usage"):
        assert getattr(first.fit_report_, name) == getattr(second.fit_report_, name)


def fit_and_save(folder: Path) -> None:
    model = small(max_epochs=80).fit(X, Y, checkpoint_dir=folder / "checkpoint", resume=True)
    model.save(folder / "model")


def survive(folder: Path, rng: np.random.Generator, n_kills: int) -> int:
    """Kill a process at random moments and start it again, until it ends by itself; returns how often it was killed."""
    n_killed = 0
    while True:
        process = multiprocessing.get_context("fork").Process(target=fit_and_save, args=(folder,))
        process.start()
        if n_killed < n_kills:
            process.join(rng.uniform(0.05, 0.4))
        else:
            process.join()
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            n_killed += 1
            continue
        assert process.exitcode == 0
        return n_killed


@pytest.mark.parametrize("n_kills", [3, pytest.param(30, marks=pytest.mark.statistical)])
def test_a_killed_training_ends_as_if_nothing_had_happened(n_kills, tmp_path):
    rng, n_killed, whole = np.random.default_rng(0), 0, small(max_epochs=80).fit(X, Y)
    while n_killed < n_kills:
        folder = tmp_path / str(n_killed)
        n_killed += survive(folder, rng, n_kills - n_killed)
        assert_same(load(folder / "model"), whole)


def test_checkpoints_change_nothing_and_a_longer_training_goes_on_from_the_end(tmp_path):
    short = small(max_epochs=15).fit(X, Y)
    assert_same(small(max_epochs=15).fit(X, Y, checkpoint_dir=tmp_path), short)
    longer = small().fit(X, Y, checkpoint_dir=tmp_path, resume=True)
    assert longer.fit_report_.n_epochs > 15
    assert longer.fit_report_.valid_nll[:15] == short.fit_report_.valid_nll
    assert longer.fit_report_.best_nll < short.fit_report_.best_nll
    assert_same(small().fit(X, Y, checkpoint_dir=tmp_path, resume=True), longer)  # there is nothing left to do


def test_another_folder_other_data_and_other_settings_are_told_apart(tmp_path):
    small(max_epochs=1).fit(X, Y, checkpoint_dir=tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(MixturaError, match="E-checkpoint-exists"):
        small(max_epochs=1).fit(X, Y, checkpoint_dir=tmp_path)
    for model, y in ((small(learning_rate=0.1), Y), (small(random_state=1), Y), (small(), Y + X[:, 0])):
        with pytest.raises(MixturaError, match="E-checkpoint-mismatch"):
            model.fit(X, y, checkpoint_dir=tmp_path, resume=True)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_is_refused(tmp_path):
    small(max_epochs=1).fit(X, Y, checkpoint_dir=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    for content in (b"", b"something else", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(MixturaError, match="E-checkpoint-corrupt"):
            small().fit(X, Y, checkpoint_dir=tmp_path, resume=True)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MixturaError, match="E-checkpoint-write"):
        small().fit(X, Y, checkpoint_dir=tmp_path / "file")

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    start = time.perf_counter()
    with pytest.raises(MixturaError, match="E-checkpoint-write"):
        small(max_epochs=10_000, patience=10_000).fit(X, Y, checkpoint_dir=tmp_path / "full")
    assert time.perf_counter() - start < 60


def test_a_disk_that_runs_full_costs_a_warning_and_not_the_training(tmp_path, monkeypatch):
    whole, calls = checkpoint.save_file, []

    def full_later(*arguments) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        whole(*arguments)

    monkeypatch.setattr(checkpoint, "save_file", full_later)
    with pytest.warns(MixturaWarning, match="W-checkpoint-write") as caught:
        model = small().fit(X, Y, checkpoint_dir=tmp_path)
    assert len(caught) == 1
    assert_same(model, small().fit(X, Y))
    monkeypatch.setattr(checkpoint, "save_file", whole)
    assert_same(small().fit(X, Y, checkpoint_dir=tmp_path, resume=True), model)  # from the one that was written


def test_a_checkpoint_with_another_layout_is_told_as_corrupt(tmp_path):
    model = small(max_epochs=2)
    model.fit(X, Y, checkpoint_dir=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
    del state["learners"]
    save_file({}, path, {"state": json.dumps(state)})
    with pytest.raises(MixturaError, match="E-checkpoint-corrupt"):
        model.fit(X, Y, checkpoint_dir=tmp_path, resume=True)
