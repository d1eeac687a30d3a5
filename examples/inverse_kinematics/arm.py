"""Arms of six and seven joints: their geometry, and the density of their angles, given the pose of the hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import example_robot_data
import numpy as np
import torch
from numpy.typing import NDArray
from roboticstoolbox import ET, ETS
from scipy.spatial.transform import Rotation
from sklearn.base import clone
from spatialmath import SE3

from mixtura import MDNRegressor

Array = NDArray[np.float64]
AXES = {"X": (np.array([1.0, 0, 0]), ET.Rx), "Y": (np.array([0, 1.0, 0]), ET.Ry), "Z": (np.array([0, 0, 1.0]), ET.Rz)}
TOLERANCE = 1e-6
"""Of the hand, in metres and radians."""


class Arm:
    """Joints from base to hand, as pinocchio reads them from a URDF; poses are matrices of homogeneous coordinates.

    Parameters
    ----------
    name
        Of example_robot_data.
    hand
        The frame that is to be placed.
    order
        In which order a chain of densities takes the joints.
    turns
        Whether the joints turn all around: angles that are a turn apart are the same then.
    """

    def __init__(self, name: str, hand: str, order: Sequence[int], turns: bool = False):
        model = example_robot_data.load(name).model
        frame = model.frames[model.getFrameId(hand)]
        joints = range(1, frame.parentJoint + 1)  # joint 0 is the world
        kinds = [model.joints[i].shortname() for i in joints]
        if len(kinds) < 6 or any(kind not in ("JointModelRX", "JointModelRY", "JointModelRZ") for kind in kinds):
            raise ValueError(
                f"got joints {kinds} up to {hand!r}; expected six or more, each about one axis with limits"
            )
        self.order, self.turns, self.n_joints = list(order), turns, len(joints)
        self.offsets = [model.jointPlacements[i].homogeneous for i in joints]
        self.axes = [AXES[kind[-1]] for kind in kinds]
        self.tip = frame.placement.homogeneous
        self.low, self.high = model.lowerPositionLimit[: self.n_joints], model.upperPositionLimit[: self.n_joints]

    def turn(self, joint: int, angle: Array) -> Array:
        """From the frame before a joint to the one after it, (n, 4, 4), of angles (n,)."""
        transform = np.tile(np.eye(4), (len(angle), 1, 1))
        transform[:, :3, :3] = Rotation.from_rotvec(angle[:, None] * self.axes[joint][0]).as_matrix()
        return self.offsets[joint] @ transform

    def frames(self, angles: Array) -> Iterator[Array]:
        """Poses of each joint, and last of the hand, (n, 4, 4), of angles (n, n_joints)."""
        pose = np.eye(4)
        for joint in range(self.n_joints):
            pose = pose @ self.turn(joint, angles[:, joint])
            yield pose
        yield pose @ self.tip

    def forward(self, angles: Array) -> Array:
        """Poses of the hand, (n, 4, 4), of angles (n, n_joints)."""
        *_, hand = self.frames(angles)
        return hand

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Angles anywhere within the limits, of joints that turn in a whole turn, (n, n_joints)."""
        low, high = (np.clip(limit, -np.pi, np.pi) if self.turns else limit for limit in (self.low, self.high))
        return rng.uniform(low, high, (n, self.n_joints))

    def is_within(self, angles: Array) -> NDArray[np.bool_]:
        """Whether all joints are within their limits."""
        return ((angles >= self.low) & (angles <= self.high)).all(-1)

    def difference(self, angles: Array, others: Array) -> Array:
        """Of angles, the short way round where joints turn."""
        difference = angles - others
        return (difference + np.pi) % (2 * np.pi) - np.pi if self.turns else difference

    def places(self, angles: Array) -> Array:
        """Where base, joints and hand of one configuration are, (n_joints + 2, 3)."""
        return np.concatenate([np.zeros((1, 3)), *(pose[:, :3, 3] for pose in self.frames(angles[None]))])

    def bridge(self, pose: Array, angles: Array, known: Sequence[int]) -> tuple[Array, list[int]]:
        """What the joints that are not known yet must do: the transform that is left to span, (n, 4, 4).

        Known joints are undone where they follow each other from the base or from the hand; those amid it are named.
        """
        first, last, rest = 0, self.n_joints - 1, pose @ _inverse(self.tip)
        while first in known:
            rest = _inverse(self.turn(first, angles[:, first])) @ rest
            first += 1
        while last in known:
            rest = rest @ _inverse(self.turn(last, angles[:, last]))
            last -= 1
        return rest, [joint for joint in known if first < joint < last]

    def describe(self, pose: Array, angles: Array, known: Sequence[int]) -> Array:
        """Features of the next joint: the bridge, and known angles amid it as points of a circle."""
        bridge, amid = self.bridge(pose, angles, known)
        # What is constant but for its last digits is to be constant: nothing here is known to a micrometre.
        numbers = bridge[:, :3].reshape(-1, 12).round(6)
        return np.column_stack([numbers, np.cos(angles[:, amid]), np.sin(angles[:, amid])])

    def solver(self, n_joints: int | None = None) -> ETS:
        """The first joints, or all up to the hand, for roboticstoolbox."""
        steps = []
        for joint in range(n_joints or self.n_joints):
            steps.append(ET.SE3(SE3(self.offsets[joint], check=False)))
            steps.append(self.axes[joint][1](qlim=[self.low[joint], self.high[joint]]))
        return ETS(steps if n_joints else [*steps, ET.SE3(SE3(self.tip, check=False))])


class JointDensity:
    """p(angles | pose) as a chain of scalar mixtures, one joint after the other, each given what is left to span."""

    def __init__(self, arm: Arm, link: MDNRegressor):
        self.arm, self.link = arm, link

    def fit(self, angles: Array, random_state: int = 0) -> JointDensity:
        """Learn from configurations, (n, n_joints)."""
        poses, self.links = self.arm.forward(angles), []
        for place, joint in enumerate(self.arm.order):
            features = self.arm.describe(poses, angles, self.arm.order[:place])
            link = clone(self.link).set_params(random_state=random_state)
            self.links.append(link.fit(features, angles[:, joint]))
        return self

    def sample(self, poses: Array, n_samples: int, random_state: int = 0) -> Array:
        """Draws of all joints, (n, n_samples, n_joints); of twice as many those within the limits come first."""
        generator = torch.Generator().manual_seed(random_state)
        n_drawn = 2 * n_samples
        each = np.repeat(poses, n_drawn, axis=0)
        angles = np.zeros((len(each), self.arm.n_joints))
        for place, joint in enumerate(self.arm.order):
            features = self.arm.describe(each, angles, self.arm.order[:place])
            angles[:, joint] = self.links[place].predict_dist(features).sample((), generator)
        angles = angles.reshape(len(poses), n_drawn, -1)
        first = np.argsort(~self.arm.is_within(angles), axis=1, kind="stable")[:, :n_samples, None]
        return np.take_along_axis(angles, first, axis=1)


def errors(poses: Array, others: Array) -> tuple[Array, Array]:
    """Distances in millimetres, and angles in degrees, between poses."""
    rotation = np.swapaxes(poses[..., :3, :3], -1, -2) @ others[..., :3, :3]
    sine = np.linalg.norm(rotation - np.swapaxes(rotation, -1, -2), axis=(-2, -1)) / 8**0.5
    cosine = (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2
    distance = np.linalg.norm(poses[..., :3, 3] - others[..., :3, 3], axis=-1)
    return 1000 * distance, np.degrees(np.arctan2(sine, cosine))


def _inverse(transform: Array) -> Array:
    """Of rigid motions."""
    result, rotation = np.zeros_like(transform), np.swapaxes(transform[..., :3, :3], -1, -2)
    result[..., :3, :3], result[..., 3, 3] = rotation, 1
    result[..., :3, 3] = -(rotation @ transform[..., :3, 3:])[..., 0]
    return result
