"""Bishop's arm of two joints (1994): two elbows reach the same point, and their mean reaches another.

python -m examples.inverse_kinematics.two_joint [--seeds 20] [--rows 1000] [--output FOLDER]

Links of 0.8 and 0.2, the shoulder's angle in (0.3, 1.2), the elbow's in (pi/2, 3 pi/2). The table is printed, the
picture goes to --output.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mixtura import MDNRegressor
from mixtura.plots import BLUE, INK, ORANGE

Array = NDArray[np.float64]
UPPER, FORE = 0.8, 0.2
LOW, HIGH = np.array([0.3, np.pi / 2]), np.array([1.2, 3 * np.pi / 2])
N_TEST, NEAR, FEWEST = 1_000, 0.05, 0.1
"""A branch is found where draws within NEAR of it, in radians, make up a share of FEWEST or more."""
MODEL = MDNRegressor(
    n_components=3,
    preset="plain",
    hidden_layer_sizes=(128, 128, 128),
    scale_floor=1e-4,
    batch_size=128,
    max_epochs=1_500,
    patience=200,
)
"""There is no noise in this arm: the floor of scales is a tenth of the usual one, and training takes its time."""


def forward(angles: Array) -> Array:
    """Where the hand is, (n, 2), of angles (n, 2)."""
    shoulder, both = angles[:, 0], angles.sum(1)
    x, y = UPPER * np.cos(shoulder) - FORE * np.cos(both), UPPER * np.sin(shoulder) - FORE * np.sin(both)
    return np.stack([x, y], 1)


def solve(hand: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Both solutions in closed form, (n, 2, 2), and which of them the limits permit, (n, 2)."""
    cos = (UPPER**2 + FORE**2 - (hand**2).sum(1)) / (2 * UPPER * FORE)
    elbow = np.arccos(cos.clip(-1, 1))[:, None] * [1, -1] + [0, 2 * np.pi]
    shoulder = np.arctan2(hand[:, 1:], hand[:, :1]) - np.angle(UPPER - FORE * np.exp(1j * elbow))
    angles = np.stack([shoulder, elbow], 2)
    return angles, np.all((angles > LOW) & (angles < HIGH), axis=2)


def draw(n: int, seed: int) -> tuple[Array, Array]:
    """Where the hand is, and the angles that put it there."""
    angles = np.random.default_rng(seed).uniform(LOW, HIGH, (n, 2))
    return forward(angles), angles


def rms(angles: Array, hand: Array) -> float:
    """Root of the mean squared distance of the hand from where it should be."""
    return float(np.sqrt(((forward(angles) - hand) ** 2).sum(1).mean()))


def judge(model: MDNRegressor, n: int, seed: int) -> dict[str, float]:
    """One arm learned from n configurations; the figures of the README on others."""
    (X, y), (X_test, _) = draw(n, seed), draw(N_TEST, 10_000 + seed)
    network = MLPRegressor(hidden_layer_sizes=(64, 64), max_iter=2_000, random_state=seed)
    squares = make_pipeline(StandardScaler(), network).fit(X, y)
    model = clone(model).set_params(random_state=seed).fit(X, y)
    mixture = model.predict_dist(X_test)
    draws = model.sample(X_test, 400, random_state=seed)
    solutions, is_allowed = solve(X_test)
    share = (np.abs(draws[:, None] - solutions[:, :, None]).max(-1) < NEAR).mean(2)
    # Where the arm is stretched the branches become one; near the limits a branch ends from one point to the next.
    is_both = is_allowed.all(1) & (np.abs(solutions[:, 0, 1] - np.pi) > 2 * NEAR)
    is_inner = is_both & ((solutions > LOW + 0.1) & (solutions < HIGH - 0.1)).all((1, 2))
    return {
        "RMS, least squares": rms(squares.predict(X_test), X_test),
        "RMS, most probable mode": rms(mixture.modes().loc[:, 0].numpy(), X_test),
        "both branches found": (share[is_both] >= FEWEST).all(1).mean(),
        "the same, also near a stretched arm": (share[is_allowed.all(1)] >= FEWEST).all(1).mean(),
        "error of weight": np.abs(share[is_both] - 0.5).mean(),
        "error of weight, inside": np.abs(share[is_inner] - 0.5).mean(),
    }


def picture(path: Path) -> None:
    """Both solutions of one point, as the mixture has them, and what the mean does; elbows of a hand that moves out."""
    model = clone(MODEL).set_params(random_state=0).fit(*draw(1_000, 0))
    hand = np.array([[0.65, 0.65]])
    mixture = model.predict_dist(hand)
    modes = mixture.modes()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    likely = [i for i in range(int(modes.count[0])) if modes.mass[0, i] > FEWEST]
    drawn = [(modes.loc[0, i].numpy(), BLUE, f"mode, {modes.mass[0, i]:.0%}") for i in likely]
    for angles, color, label in [*drawn, (mixture.mean[0].numpy(), ORANGE, "mean")]:
        elbow = UPPER * np.array([np.cos(angles[0]), np.sin(angles[0])])
        joints = np.stack([np.zeros(2), elbow, forward(angles[None])[0]])
        left.plot(*joints.T, "o-", color=color, label=label)
    left.plot(*hand[0], "x", color=INK, markersize=10, label="where the hand should be")
    left.set(aspect="equal", title="Which angles put the hand there?")
    left.legend(fontsize="small")
    reach = np.linspace(0.83, 0.9995, 120)
    path_out = reach[:, None] * np.full(2, 0.5**0.5)
    solutions, is_allowed = solve(path_out)
    draws = model.sample(path_out, 10, random_state=0)
    right.plot(np.repeat(reach, 10), draws[:, :, 1].ravel(), ".", color=BLUE, markersize=2, label="draws")
    right.plot(reach, np.where(is_allowed, solutions[:, :, 1], np.nan), color=INK, linewidth=0.8)
    right.plot(reach, model.predict(path_out)[:, 1], color=ORANGE, label="mean")
    right.set(xlabel="distance of the hand from the shoulder", ylabel="elbow, rad", title="The hand moves out")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="arms to learn")
    parser.add_argument("--rows", type=int, default=1_000, help="configurations to learn from")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([judge(MODEL, args.rows, seed) for seed in range(args.seeds)])
    print(table.agg(["mean", "min", "max"]).T.to_string(float_format="{:.5f}".format))
    picture(args.output / "two_joint.png")


if __name__ == "__main__":
    main()
