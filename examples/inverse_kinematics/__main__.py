"""Which joint angles put the hand there? All of them: p(angles | pose), beside solvers that find one.

python -m examples.inverse_kinematics [panda | ur5] [--rows 200000] [--poses 500] [--truths 30] [--output FOLDER]

Panda has seven joints, one more than a pose needs, UR5 six. Needs the extra `mixtura[robotics]`. The table is printed,
the picture goes to --output.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone

from mixtura import MDNRegressor

from . import judges
from .arm import Arm, JointDensity

LINK = MDNRegressor(n_components=8, preset="plain", family="normal", hidden_layer_sizes=(128, 128, 128), max_epochs=60)
PANDA = {"name": "panda", "hand": "panda_link8", "order": (6, 3, 5, 4, 2, 1, 0)}
"""The last joint first: it holds what is free. Then what the distance from shoulder to wrist says, and so inwards."""
UR5 = {"name": "ur5", "hand": "tool0", "order": (0, 4, 5, 2, 1, 3), "turns": True}
"""Whether the arm is turned around, whether the wrist is, and what is left are three joints in a plane."""
ARMS = {"panda": (PANDA, LINK), "ur5": (UR5, clone(LINK).set_params(family="von_mises"))}


def compare(name: str, n_rows: int, n_poses: int, n_true: int, output: Path) -> None:
    """Learn from n_rows configurations; print what `judges` measure on n_poses others, on n_true of them in full."""
    settings, link = ARMS[name]
    arm, rng = Arm(**settings), np.random.default_rng(0)
    learned = arm.draw(n_rows, rng)
    started = time.process_time()
    density = JointDensity(arm, link).fit(learned)
    print(f"learned from {n_rows:,} configurations in {time.process_time() - started:.0f} s of CPU")
    poses = arm.forward(arm.draw(n_poses, np.random.default_rng(1)))
    truths = [judges.solve(arm, pose, rng) for pose in poses[:n_true]]
    methods = {
        "Mixtura": density.sample,
        "nearest in training": judges.nearest(arm, learned),
        "random starts": lambda poses, n: arm.draw(n * len(poses), rng).reshape(len(poses), n, -1),
    }
    rows = {method: judges.judge(arm, poses, draw, truths) for method, draw in methods.items()}
    rows["the truth"] = judges.ceiling(arm, truths, rng)
    print(pd.DataFrame(rows).to_string(float_format="{:.4g}".format))
    told = {method: judges.tell_reachable(arm, methods[method]) for method in ("Mixtura", "nearest in training")}
    print(pd.DataFrame(told).to_string(float_format="{:.3f}".format))
    judges.picture(arm, density.sample, poses[0], output / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", nargs="?", default="panda", choices=[*ARMS])
    parser.add_argument("--rows", type=int, default=200_000, help="configurations to learn from")
    parser.add_argument("--poses", type=int, default=500, help="poses to judge on")
    parser.add_argument("--truths", type=int, default=30, help="poses of which all solutions are found")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    # Where a joint was drawn badly, what is left to span may be unlike anything that was learned.
    warnings.filterwarnings("ignore", r"\[W-feature-far\]")
    compare(args.arm, args.rows, args.poses, args.truths, args.output)


if __name__ == "__main__":
    main()
