"""The example of Bishop's arm: both elbows are found."""

import sys

import numpy as np
from sklearn.base import clone

from examples.inverse_kinematics import two_joint


def test_both_elbows_reach_the_same_point():
    hand, angles = two_joint.draw(500, 0)
    solutions, is_allowed = two_joint.solve(hand)
    for one in solutions.swapaxes(0, 1):
        np.testing.assert_allclose(two_joint.forward(one), hand, atol=1e-12)
    its = np.abs(solutions - angles[:, None]).max(2).argmin(1)
    np.testing.assert_allclose(solutions[np.arange(500), its], angles, atol=1e-7)
    assert is_allowed[np.arange(500), its].all()
    assert 0.6 < is_allowed.all(1).mean() < 0.8


def test_a_small_model_finds_both_where_least_squares_finds_none():
    model = clone(two_joint.MODEL).set_params(hidden_layer_sizes=(64, 64), batch_size=64, max_epochs=300)
    figures = two_joint.judge(model, 1_000, seed=0)
    assert figures["RMS, least squares"] > 0.04
    assert figures["RMS, most probable mode"] < 0.002
    assert figures["both branches found"] > 0.95
    assert figures["error of weight"] < 0.15


def test_the_program_prints_its_table_and_draws_its_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(two_joint, "MODEL", clone(two_joint.MODEL).set_params(hidden_layer_sizes=(16,), max_epochs=10))
    monkeypatch.setattr(two_joint, "N_TEST", 50)
    monkeypatch.setattr(sys, "argv", ["two_joint", "--seeds", "1", "--output", str(tmp_path)])
    two_joint.main()
    assert "most probable mode" in capsys.readouterr().out
    assert (tmp_path / "two_joint.png").stat().st_size < 100_000
