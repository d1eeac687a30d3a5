"""Largest errors of log_prob, cdf and icdf against mpmath with 600 digits, over scales 1e-3 ... 1e6.

make bench          or          python benchmarks/precision.py
"""

from dataclasses import dataclass

import mpmath
import torch
from mpmath import mpf
from torch import Tensor
from torch.distributions import Normal

from mixtura import Mixture

SCALES = [10.0**k for k in range(-3, 7)]
SHAPES: dict[str, tuple[list[float], list[float], list[float]]] = {
    # name: weights (of any sum), locs, scales, both times the scale under test
    "one normal": ([1.0], [0.3], [1.0]),
    "skewed by three": ([0.5, 0.3, 0.2], [0.0, 1.0, 3.0], [0.4, 1.0, 2.5]),
    "two far modes": ([0.5, 0.5], [-20.0, 20.0], [1.0, 1.0]),
    "flat between modes": ([1.0, 1.0, 1.0, 1.0], [-60.0, 0.0, 120.0, 240.0], [1.0, 0.5, 2.0, 1.0]),
    "needle in a haystack": ([0.5, 0.5], [0.0, 0.5], [1.0, 1e-3]),
    "weight 1e-12": ([1 - 1e-12, 1e-12], [0.0, 50.0], [1.0, 3.0]),
    "far from the origin": ([0.4, 0.6], [1000.0, 1001.0], [0.1, 0.3]),
}
LEVELS = [1e-300, 1e-100, 1e-12, 1e-6, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1 - 1e-6, 1 - 1e-12]
OFFSETS = [-100.0, -37.0, -10.0, -3.0, -0.5, 0.0, 0.5, 3.0, 10.0, 37.0, 100.0]


@dataclass
class Reference:
    """The same mixture in mpmath, from the very doubles that the mixture was made of."""

    weights: list[mpf]
    locs: list[mpf]
    scales: list[mpf]

    @classmethod
    def of(cls, logits: Tensor, components: Normal) -> "Reference":
        """Exact conversion of the inputs; the weights are normalised with 600 digits."""
        raw = [mpmath.exp(mpf(x)) for x in logits.tolist()]
        locs, scales = components.loc.tolist(), components.scale.tolist()
        return cls([x / sum(raw) for x in raw], [mpf(x) for x in locs], [mpf(x) for x in scales])

    def _sum(self, term) -> mpf:
        parts = zip(self.weights, self.locs, self.scales, strict=True)
        return mpmath.fsum(w * term((self.y - m) / s, s) for w, m, s in parts)

    def log_prob(self, y: float | mpf) -> mpf:
        """Log density."""
        self.y = mpf(y)
        return mpmath.log(self._sum(lambda z, s: mpmath.exp(-z * z / 2) / (s * mpmath.sqrt(2 * mpmath.pi))))

    def cdf(self, y: float | mpf) -> mpf:
        """Distribution function."""
        self.y = mpf(y)
        return self._sum(lambda z, s: mpmath.erfc(-z / mpmath.sqrt(2)) / 2)

    def survival(self, y: float | mpf) -> mpf:
        """1 - cdf, without cancellation."""
        self.y = mpf(y)
        return self._sum(lambda z, s: mpmath.erfc(z / mpmath.sqrt(2)) / 2)

    def icdf(self, level: float, near: float) -> mpf:
        """The quantile: Newton from `near`, or bisection where Newton leaves the bracket."""
        q = mpf(level)
        low = min(m - 45 * s for m, s in zip(self.locs, self.scales, strict=True))
        high = max(m + 45 * s for m, s in zip(self.locs, self.scales, strict=True))
        y = mpf(near)
        for _ in range(400):
            gap = self.cdf(y) - q if q < 0.5 else (1 - q) - self.survival(y)
            if gap == 0:
                return y
            low, high = (y, high) if gap < 0 else (low, y)
            step = y - gap / mpmath.exp(self.log_prob(y))
            following = step if low < step < high else (low + high) / 2
            if abs(following - y) <= mpf(10) ** -30 * max(abs(y), min(self.scales)):
                return following
            y = following
        raise ArithmeticError("no convergence")


@dataclass
class Errors:
    """Largest errors seen: of log_prob and cdf absolute, of icdf absolute and in units of the narrowest scale."""

    log_prob: float = 0.0
    log_prob_relative: float = 0.0
    cdf: float = 0.0
    icdf: float = 0.0
    icdf_per_size: float = 0.0
    """Error over max(|y|, narrowest scale)."""


@mpmath.workdps(600)  # on the flat stretches, F differs from the level in the 500th digit
def measure(shape: str, scale: float, dtype: torch.dtype = torch.float64) -> Errors:
    """Errors of one mixture at one scale."""
    weights, locs, scales = (torch.tensor(values, dtype=dtype) for values in SHAPES[shape])
    logits, components = weights.log(), Normal(locs * scale, scales * scale)
    mixture, truth, errors = Mixture(logits, components), Reference.of(logits, components), Errors()
    points = (components.loc[:, None] + components.scale[:, None] * torch.tensor(OFFSETS, dtype=dtype)).flatten()
    for y, log_prob, cdf in zip(
        points.tolist(), mixture.log_prob(points).tolist(), mixture.cdf(points).tolist(), strict=True
    ):
        true = truth.log_prob(y)
        errors.log_prob = max(errors.log_prob, float(abs(log_prob - true)))
        errors.log_prob_relative = max(errors.log_prob_relative, float(abs(log_prob - true) / max(1, abs(true))))
        errors.cdf = max(errors.cdf, float(abs(cdf - truth.cdf(y))))
    levels = torch.tensor(LEVELS, dtype=dtype)
    levels = levels[(levels > 0) & (levels < 1)]
    for level, y in zip(levels.tolist(), mixture.icdf(levels).tolist(), strict=True):
        true = truth.icdf(level, y)
        errors.icdf = max(errors.icdf, float(abs(y - true)))
        size = max(abs(true), min(truth.scales))
        errors.icdf_per_size = max(errors.icdf_per_size, float(abs(y - true) / size))
    return errors


def main() -> None:
    """Print the largest errors by scale and by mixture."""
    heads = ["log_prob", "relative", "cdf", "icdf", "icdf/size"]
    print(f"{'scale':>8} " + " ".join(f"{head:>10}" for head in heads) + "   worst mixture for icdf")
    everything = Errors()
    for scale in SCALES:
        by_shape = {shape: measure(shape, scale) for shape in SHAPES}
        worst = max(by_shape, key=lambda shape: by_shape[shape].icdf_per_size)
        row = Errors(*(max(getattr(e, name) for e in by_shape.values()) for name in vars(everything)))
        everything = Errors(*(max(a, b) for a, b in zip(vars(everything).values(), vars(row).values(), strict=True)))
        print(f"{scale:8.0e} " + " ".join(f"{value:10.1e}" for value in vars(row).values()) + f"   {worst}")
    print(f"{'largest':>8} " + " ".join(f"{value:10.1e}" for value in vars(everything).values()))


if __name__ == "__main__":
    main()
