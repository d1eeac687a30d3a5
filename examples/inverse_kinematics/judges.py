"""What draws of joint angles are worth: beside the true set of solutions, and as starts of a solver."""

import time
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from roboticstoolbox import ETS
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from mixtura.plots import BLUE, INK

from .arm import Arm, Array, errors

Method = Callable[[Array, int], Array]
"""Of poses (n, 4, 4) and a number, that many sets of angles for each, (n, number, n_joints)."""
RESIDUAL = 0.5 * 1e-6**2
"""Half the squared error of a solution, in metres and radians, as roboticstoolbox counts: a micrometre."""
N_DRAWS, N_CELLS, N_STARTS, APART, LEAST = 50, 256, 20, 0.5, 0.02
"""Draws of a pose; values of a free joint, and random starts for each, that find the true solutions; how far branches
are apart, in radians; the least probability of a branch that is to be found."""


def nearest(arm: Arm, learned: Array) -> Method:
    """The configurations whose poses are nearest, of those that the density learned from."""

    def flat(poses: Array) -> Array:  # a radian counts as much as a third of a metre
        return np.concatenate([poses[:, :3, 3], 0.25 * poses[:, :3, :3].reshape(-1, 9)], axis=1)

    tree = KDTree(flat(arm.forward(learned)))
    return lambda poses, n: learned[tree.query(flat(poses), range(1, min(n, len(learned)) + 1))[1]]


def misses(arm: Arm, angles: Array, poses: Array) -> tuple[Array, Array]:
    """By how many millimetres and degrees angles (n, m, n_joints) miss the poses (n, 4, 4)."""
    reached = arm.forward(angles.reshape(-1, arm.n_joints)).reshape(*angles.shape[:2], 4, 4)
    return errors(reached, poses[:, None])


def polish(solver: ETS, pose: Array, starts: Array) -> tuple[Array | None, int]:
    """The first start from which Levenberg-Marquardt gets there within the limits: the solution, and which it was."""
    for number, start in enumerate(starts, 1):
        found = solver.ik_LM(pose, q0=start, slimit=1, tol=RESIDUAL)
        if found.success:
            return found.q, number
    return None, len(starts)


def judge(arm: Arm, poses: Array, method: Method, truths: list[tuple[Array, Array]]) -> dict[str, float]:
    """A method on all poses, and its draws on the first of them beside the true solutions."""
    started = time.process_time()
    angles = method(poses, N_DRAWS)
    seconds = time.process_time() - started
    distance, turn = misses(arm, angles, poses)
    miss = distance / 10 + turn
    # A solver moves a start the further, the more it misses; near a limit that may lead beyond.
    room = 1.0 if arm.turns else np.minimum(angles - arm.low, arm.high - angles).min(2).clip(1e-3)
    order = np.argsort(miss / room, axis=1)[:, :, None]
    solver = arm.solver()
    found = [polish(solver, *one) for one in zip(poses, np.take_along_axis(angles, order, 1), strict=True)]
    n_starts = np.array([n for _, n in found])
    best = np.arange(len(poses)), miss.argmin(1)
    draws, branches = [], []
    for pose, starts, truth in zip(poses, angles, truths, strict=False):
        ends = [polish(solver, pose, start[None])[0] for start in starts]
        draws.append(np.reshape([end for end in ends if end is not None], (-1, arm.n_joints)))
        branches.append(share_of_branches(arm, draws[-1], *truth))
    return {
        "mm": distance.mean(),
        "degrees": turn.mean(),
        "median mm": np.median(distance),
        "median degrees": np.median(turn),
        "best of 50: mm": distance[best].mean(),
        "best of 50: degrees": turn[best].mean(),
        "within limits": arm.is_within(angles).mean(),
        "starts": n_starts.mean(),
        "solved at the first": (n_starts == 1).mean(),
        "solved": np.mean([end is not None for end, _ in found]),
        "MMD²": np.nanmean([mmd(arm, *one) for one in zip(draws, truths, strict=True)]),
        "branches found": np.mean(branches),
        "ms": 1000 * seconds / len(poses),
    }


def solve(arm: Arm, pose: Array, rng: np.random.Generator, n_cells: int = N_CELLS) -> tuple[Array, Array]:
    """All solutions of a pose, (m, n_joints), and the probability of each where all configurations are alike.

    Of seven joints the last one is set to values on a grid. That leaves six equations for six joints, whose solutions
    are found from many starts; the density of each goes with 1/|det J|, J the Jacobian of the six. Where solutions turn
    back, that is infinite: a cell of width h holds a length of sqrt(2h) there, of a curve of radius one.
    """
    solver, whole = arm.solver(6), arm.solver()
    grid = np.linspace(arm.low[6:], arm.high[6:], 2 * n_cells + 1)[1::2] if arm.n_joints > 6 else np.empty((1, 0))
    n_starts = N_STARTS if arm.n_joints > 6 else 20 * N_STARTS
    least_slope = np.sqrt((arm.high[6] - arm.low[6]) / n_cells / 2) if arm.n_joints > 6 else 0.0
    found = [np.empty((0, 6)) for _ in grid]
    # There and back: branches go on, so solutions beside are starts, too.
    for cell, beside in [
        *((i, i - 1) for i in range(len(grid))),
        *((i, i + 1) for i in reversed(range(len(grid) - 1))),
    ]:
        known = np.concatenate([np.zeros(6), grid[cell]])[None]
        goal = arm.bridge(pose[None], known, range(6, arm.n_joints))[0][0]
        starts = np.concatenate([found[beside], rng.uniform(arm.low[:6], arm.high[:6], (n_starts, 6))])
        for start in starts:
            end, _ = polish(solver, goal, start[None])
            if end is not None and not (np.abs(arm.difference(found[cell], end)).max(1) < 1e-3).any():
                found[cell] = np.vstack([found[cell], end])
    angles = np.concatenate(
        [np.column_stack([ends, np.tile(last, (len(ends), 1))]) for ends, last in zip(found, grid, strict=True)]
    )
    weights = np.empty(len(angles))
    for i, one in enumerate(angles):
        jacobian = whole.jacob0(one)
        least = least_slope * np.linalg.det(jacobian @ jacobian.T) ** 0.5
        weights[i] = 1 / max(abs(np.linalg.det(jacobian[:, :6])), least)
    return angles, weights / weights.sum()


def ceiling(arm: Arm, truths: list[tuple[Array, Array]], rng: np.random.Generator) -> dict[str, float]:
    """What as many draws of the truth itself would reach."""
    draws = [angles[rng.choice(len(angles), N_DRAWS, p=weights)] for angles, weights in truths]
    pairs = [*zip(draws, truths, strict=True)]
    return {
        "MMD²": float(np.mean([mmd(arm, *one) for one in pairs])),
        "branches found": float(np.mean([share_of_branches(arm, some, *truth) for some, truth in pairs])),
    }


def share_of_branches(arm: Arm, draws: Array, angles: Array, weights: Array) -> float:
    """Of the branches of the true solutions that have some probability, the share that draws are on."""
    if not len(draws):
        return 0.0
    distance = np.abs(arm.difference(angles[:, None], angles)).max(2)
    branch = connected_components(distance < APART)[1]
    is_likely = np.bincount(branch, weights) > LEAST
    met = branch[np.abs(arm.difference(draws[:, None], angles)).max(2).argmin(1)]
    return float(np.isin(np.flatnonzero(is_likely), met).mean())


def mmd(arm: Arm, draws: Array, truth: tuple[Array, Array]) -> float:
    """Squared maximum mean discrepancy between draws and the true law, without bias; kernels of 0.1, 0.3 and 1 rad."""
    angles, weights = truth
    if len(draws) < 2:
        return np.nan

    def kernel(some: Array, others: Array) -> Array:
        squared = (arm.difference(some[:, None], others) ** 2).sum(2)
        return np.mean([np.exp(-squared / (2 * width**2)) for width in (0.1, 0.3, 1.0)], axis=0)

    own, n = kernel(draws, draws), len(draws)
    within = (own.sum() - n) / (n * (n - 1))
    return within - 2 * (kernel(draws, angles) @ weights).mean() + weights @ kernel(angles, angles) @ weights


def tell_reachable(arm: Arm, method: Method, n_poses: int = 300) -> dict[str, float]:
    """How well the best draw tells poses that the arm can reach from others.

    A pose is out of reach where its best draw misses by more than that of 99 in 100 poses that are not. Poses are in
    a box about the base, any way up; what 100 random starts of a solver do not reach is called unreachable.
    """
    rng, solver = np.random.default_rng(2), arm.solver()

    def miss(poses: Array) -> Array:
        distance, turn = misses(arm, method(poses, N_DRAWS), poses)
        return (distance / 10 + turn).min(1)

    limit = np.quantile(miss(arm.forward(arm.draw(n_poses, rng))), 0.99)
    poses = np.tile(np.eye(4), (n_poses, 1, 1))
    poses[:, :3, :3] = Rotation.random(n_poses, rng).as_matrix()
    poses[:, :3, 3] = rng.uniform([-1, -1, -0.5], [1, 1, 1.2], (n_poses, 3))
    is_reached = np.array([polish(solver, pose, arm.draw(100, rng))[0] is not None for pose in poses])
    is_said = miss(poses) <= limit
    return {
        "reachable": is_reached.mean(),
        "of these said to be": is_said[is_reached].mean(),
        "of the others said to be": is_said[~is_reached].mean(),
    }


def picture(arm: Arm, method: Method, pose: Array, path: Path) -> None:
    """Some solutions of one pose, and draws of its joints on the true solutions."""
    draws = method(pose[None], 500)[0]
    angles = arm.difference(solve(arm, pose, np.random.default_rng(0), 8 * N_CELLS)[0], np.zeros(arm.n_joints))
    figure = plt.figure(figsize=(10, 3.6), layout="constrained")
    space = figure.add_subplot(1, 3, 1, projection="3d")
    for some in draws[:8]:
        space.plot(*arm.places(some).T, "o-", markersize=3)
    space.set(title="Eight draws, in metres", aspect="equal")
    space.locator_params(nbins=3)
    for place, (across, up) in enumerate(((-1, 0), (-1, 3)), 2):
        axes = figure.add_subplot(1, 3, place)
        axes.scatter(draws[:, across], draws[:, up], s=4, color=BLUE, label="draws")
        axes.scatter(angles[:, across], angles[:, up], s=1, color=INK, label="truth")
        axes.set(xlabel=f"joint {arm.n_joints}, rad", ylabel=f"joint {up + 1}, rad")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)
