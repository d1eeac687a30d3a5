"""The example of inverse kinematics: geometry against closed forms and other hands, densities against all solutions."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mixtura import MDNRegressor

pinocchio = pytest.importorskip("pinocchio")

from example_robot_data import load  # noqa: E402

from examples.inverse_kinematics import __main__ as program  # noqa: E402
from examples.inverse_kinematics import judges  # noqa: E402
from examples.inverse_kinematics.arm import Arm, JointDensity, errors  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*W-feature-far")
SMALL = MDNRegressor(4, preset="plain", hidden_layer_sizes=(48, 48), family="normal", max_epochs=12)


@pytest.fixture(scope="module")
def arm():
    return Arm(**program.ARMS["panda"][0])


def test_hands_are_where_others_have_them(arm):
    """The flange of the Panda at rest, by its data sheet; and the product of what pinocchio says."""
    np.testing.assert_allclose(arm.forward(np.zeros((1, 7)))[0, :3, 3], [0.088, 0, 0.926], atol=1e-9)
    model = load("panda").model
    data, angles = model.createData(), arm.draw(20, np.random.default_rng(0))
    for pose, some in zip(arm.forward(angles), angles, strict=True):
        pinocchio.framesForwardKinematics(model, data, np.concatenate([some, np.zeros(model.nq - 7)]))
        np.testing.assert_allclose(pose, data.oMf[model.getFrameId("panda_link8")].homogeneous, atol=1e-9)
        np.testing.assert_allclose(arm.solver().eval(some), pose, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "other"), [("panda", "franka_panda__example_robot_data"), ("ur5", "ur5__example_robot_data")]
)
def test_hands_are_where_the_check_matrices_have_them(arm, name, other):
    path = (
        Path(os.environ.get("MIXTURA_DATA", Path(__file__).parents[2] / "shared" / "data"))
        / "robot_kinematics"
        / "chains.json"
    )
    if not path.exists():
        pytest.skip("needs MIXTURA_DATA")
    check = json.loads(path.read_text())[other]["check"]
    np.testing.assert_allclose(Arm(**program.ARMS[name][0]).forward(np.array(check["q"])), check["fk_of_q"], atol=1e-6)


def test_what_is_left_to_span_is_what_unknown_joints_do(arm):
    angles = arm.draw(50, np.random.default_rng(0))
    rest, amid = arm.bridge(arm.forward(angles), angles, [6, 3, 5, 0])
    assert amid == [3]
    expected = np.eye(4)
    for joint in (1, 2, 3, 4):
        expected = expected @ arm.turn(joint, angles[:, joint])
    np.testing.assert_allclose(rest, expected, atol=1e-12)


def test_errors_of_poses_are_those_of_their_making(arm):
    pose = arm.forward(arm.draw(3, np.random.default_rng(0)))
    moved = pose.copy()
    moved[:, :3, 3] += [0.003, 0, 0.004]
    moved[:, :3, :3] = pose[:, :3, :3] @ Rotation.from_rotvec([[1e-4, 0, 0], [0, 0.5, 0], [0, 0, 3.1]]).as_matrix()
    distance, turn = errors(pose, moved)
    np.testing.assert_allclose(distance, 5)
    np.testing.assert_allclose(turn, np.degrees([1e-4, 0.5, 3.1]))


def test_all_solutions_of_a_pose_are_solutions_and_chains_draw_near_them(arm):
    rng = np.random.default_rng(0)
    poses = arm.forward(arm.draw(20, rng))
    truths = [judges.solve(arm, pose, rng) for pose in poses[:2]]
    for pose, (angles, weights) in zip(poses, truths, strict=False):
        assert len(angles) > 10
        assert max(np.max(some) for some in errors(arm.forward(angles), pose)) < 1e-2
        assert arm.is_within(angles).all()
        assert weights.sum() == pytest.approx(1)
        # Draws of the truth have no discrepancy from it, and those of another law have one.
        draws = angles[rng.choice(len(angles), 200, p=weights)]
        assert judges.mmd(arm, draws, (angles, weights)) < 0.01 < judges.mmd(arm, arm.draw(200, rng), (angles, weights))
        assert judges.share_of_branches(arm, draws, angles, weights) == 1
    density = JointDensity(arm, SMALL).fit(arm.draw(4_000, rng))
    rows = {
        name: judges.judge(arm, poses, draw, truths)
        for name, draw in {
            "chain": density.sample,
            "random": lambda poses, n: arm.draw(n * len(poses), rng).reshape(len(poses), n, -1),
        }.items()
    }
    chain, random = rows["chain"], rows["random"]
    assert chain["best of 50: mm"] < 50 < random["best of 50: mm"]
    assert chain["solved at the first"] > 0.8 > random["solved at the first"]
    assert chain["branches found"] > 0.5
    assert (density.sample(poses, 5) == density.sample(poses, 5)).all()


@pytest.mark.parametrize("name", ["panda", "ur5"])
def test_the_configuration_that_made_a_pose_is_among_its_solutions(name):
    arm, rng = Arm(**program.ARMS[name][0]), np.random.default_rng(1)
    for own in arm.draw(3, rng):
        pose = arm.forward(own[None])[0]
        angles, weights = judges.solve(arm, pose, rng)
        apart = np.abs(arm.difference(angles, own)).max(1)
        assert apart.min() < (0.3 if name == "panda" else 1e-4)
        assert max(np.max(some) for some in errors(arm.forward(angles), pose)) < 1e-2
        if name == "ur5":
            assert len(angles) in (2, 4, 6, 8)
            density = [abs(np.linalg.det(arm.solver().jacob0(one))) for one in angles]
            np.testing.assert_allclose(weights * density, (weights * density)[0])


def test_arms_of_other_joints_are_refused():
    with pytest.raises(ValueError, match="each about one axis"):
        Arm("tiago", "arm_tool_link", range(8))


def test_joints_that_turn_are_compared_the_short_way(arm):
    ur5 = Arm(**program.ARMS["ur5"][0])
    assert np.abs(ur5.draw(1_000, np.random.default_rng(0))).max() <= np.pi < ur5.high[0]
    np.testing.assert_allclose(ur5.difference(np.array([3.1, 0.1]), np.array([-3.1, 0.0])), [6.2 - 2 * np.pi, 0.1])
    np.testing.assert_allclose(arm.difference(np.array([2.8]), np.array([-2.8])), [5.6])


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(program.ARMS, "panda", (program.ARMS["panda"][0], SMALL))
    monkeypatch.setattr(judges, "N_CELLS", 16)
    arguments = ["panda", "--rows", "1000", "--poses", "4", "--truths", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["inverse_kinematics", *arguments])
    program.main()
    assert "solved at the first" in capsys.readouterr().out
    assert (tmp_path / "panda.png").stat().st_size < 200_000
