"""Predicted densities made to agree with rows that the model has not seen: functions of (mixture, y)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from torch import Tensor
from torch.distributions import Distribution, Normal

from .entropy import ROWS_TO_INTEGRATE
from .errors import MixturaError
from .families import NormalFamily, ScalarFamily
from .families.normal import standard_cdf
from .families.quadrature import quadrature
from .mixture import Mixture
from .peaks import by_row, whole_numbers
from .regions import Region, heaviest_numbers
from .scores import censored_nll, nll

_USUAL_LOG = 0.5
"""Standard deviation of the prior of the logarithms of both temperatures."""
_FARTHEST_SCORE = 5.0
"""A row farther out says that a tail is too light, and no more: one in two millions is."""
_FARTHEST_NUMBER = 37.0
"""Beyond it the normal law's cdf is no number."""
_LEAST_SCALE = 0.25
"""Of a component of the law of normal scores: finer structure is no matter of calibration."""
_ROWS_OF_THE_PRIOR, _MOST_COMPONENTS, _EM_STEPS = 10, 3, 100
_FEWEST_CELLS, _MOST_CELLS, _CELLS_LEFT_OUT = 500, 5_000, 20


# Temperature ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Temperature:
    """Each component `scale` times as wide about its own mean, and the weights to the power `sharpness`.

    A mixture stays a mixture of its family. A lognormal component widens in the logarithm, a beta or gamma one about
    its mean, an angle about its direction; counts keep their width, which their mean decides, and only their weights
    change.
    """

    scale: float
    sharpness: float

    def apply(self, mixture: Mixture) -> Mixture:
        """The mixture at this temperature."""
        components = mixture.family.widen(mixture.components, mixture.logits.new_tensor(self.scale))
        return Mixture(self.sharpness * mixture.logits, components, mixture.atoms)


@torch.no_grad()
def fit_temperature(mixture: Mixture, y: Tensor, upper: Tensor | None = None) -> Temperature:
    """The scale and the sharpness at which rows have the least NLL, with a weak pull to 1 where rows are few.

    Parameters
    ----------
    mixture
        Predicted for rows that the model has not seen, batch_shape (n,).
    y
        What these rows turned out to be, shape (n,) or (n, D).
    upper
        Upper ends where the target is censored, shape (n,); y are then the lower ones.

    Returns
    -------
    Temperature
        Its `apply` makes a mixture of a mixture. Rows that are impossible to the model have no say in it.

    References
    ----------
    Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks, section 4.2.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> y = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> wide = Mixture(torch.zeros(1000, 1), Normal(torch.zeros(1000, 1), torch.tensor(2.0)))
    >>> round(fit_temperature(wide, y).scale, 1)
    0.5
    """

    def losses(temperature: Temperature, rows: Mixture, y: Tensor, upper: Tensor | None) -> Tensor:
        warmed = temperature.apply(rows)
        return nll(warmed, y, reduction="none") if upper is None else censored_nll(warmed, y, upper, reduction="none")

    y = y.to(mixture.dtype)
    possible = losses(Temperature(1.0, 1.0), mixture, y, upper).isfinite().nonzero()[:, 0]
    if not len(possible):
        raise MixturaError("E-too-few-rows", "no row that is possible to the model", "rows of y", "gather more data")
    rows, y, upper = mixture[possible], y[possible], None if upper is None else upper[possible]

    def objective(logs: Any) -> float:
        loss = losses(Temperature(*np.exp(logs)), rows, y, upper).mean().item()
        return loss + float(np.square(logs / _USUAL_LOG).sum()) / (2 * len(y)) if math.isfinite(loss) else np.inf

    corners = np.array([[0.0, 0.0], [0.25, 0.0], [0.0, 0.25]])
    options = {"initial_simplex": corners, "xatol": 1e-4, "fatol": 1e-8, "maxfev": 200}
    found = minimize(objective, corners[0], method="Nelder-Mead", options=options)
    return Temperature(*(float(value) for value in np.exp(found.x)))


# The law of the PIT ---------------------------------------------------------------------------------------------


def _score(below: Tensor, above: Tensor) -> Tensor:
    """The standard normal's quantile at a level, from the probabilities on both sides: no tail loses digits."""
    return torch.where(below <= above, torch.special.ndtri(below), -torch.special.ndtri(above))


def _reached(mixture: Mixture, y: Tensor) -> Tensor:
    """The normal score of P(Y <= y)."""
    return _score(mixture.cdf(y), mixture.survival(torch.nextafter(y, torch.full_like(y, torch.inf))))


def _before(mixture: Mixture, y: Tensor) -> Tensor:
    """The normal score of P(Y < y)."""
    return _score(mixture.cdf(torch.nextafter(y, torch.full_like(y, -torch.inf))), mixture.survival(y))


@torch.no_grad()
def normal_scores(mixture: Mixture, y: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
    """The PIT of a scalar target as a standard normal's quantile, standard normal where forecasts are calibrated.

    At atoms and of counts the level is drawn within the jump of the cdf, as `pit` does. Within (-5, 5).

    Parameters
    ----------
    y
        Shape batch_shape.
    generator
        Without one, always the same draws.

    References
    ----------
    Dunn and Smyth (1996), Randomized quantile residuals.
    """
    if not isinstance(mixture.family, ScalarFamily):
        fix = 'take method="temperature", or calibrate a model of one coordinate'
        raise MixturaError("E-scalar-only", "the PIT of a vector target", "a scalar target", fix)
    y = y.to(mixture.dtype)
    z = _reached(mixture, y)
    if mixture.atoms is not None or mixture.family.is_discrete:
        low, high = standard_cdf(_before(mixture, y)), standard_cdf(z)
        u = torch.rand(z.shape, dtype=z.dtype, generator=generator or mixture.own_generator())
        z = torch.where(high - low > 1e-14, torch.special.ndtri(low + u * (high - low)), z)
    return z.clamp(-_FARTHEST_SCORE, _FARTHEST_SCORE)


@torch.no_grad()
def fit_score_law(z: Float[Tensor, "n"]) -> Mixture:
    """The law of normal scores, a mixture of at most three normal laws: by EM, as many as the BIC says.

    It says none where N(0, 1) does as well, so that a calibrated model stays as it is. Ten rows of a calibrated model
    are added to those given, which pulls the law to N(0, 1) where these are few.

    References
    ----------
    Dempster, Laird and Rubin (1977); Schwarz (1978).
    """
    z = z.double()
    levels = (torch.arange(_ROWS_OF_THE_PRIOR, dtype=z.dtype) + 0.5) / _ROWS_OF_THE_PRIOR
    rows = torch.cat([z, torch.special.ndtri(levels)])
    best = standard_normal()
    least = -2 * best.log_prob(rows).sum().item()
    for k in range(1, _MOST_COMPONENTS + 1):
        for order in (rows, rows.abs()) if k > 1 else (rows,):  # side by side, or a narrow one within a wide one
            law = _fit_by_em(rows, order.argsort().argsort() * k // len(rows), k)
            bic = -2 * law.log_prob(rows).sum().item() + (3 * k - 1) * math.log(len(rows))
            if bic < least:
                best, least = law, bic
    return best


def _fit_by_em(rows: Tensor, start: Tensor, k: int) -> Mixture:
    share = torch.nn.functional.one_hot(start, k).to(rows)
    law = standard_normal()
    for _ in range(_EM_STEPS):
        fitted = NormalFamily().fit(rows, share)
        law = Mixture(share.mean(0).log(), Normal(fitted.loc, fitted.scale.clamp(min=_LEAST_SCALE)))
        share = (law.logits + law.components.log_prob(rows[:, None])).softmax(-1)
    return law


def standard_normal() -> Mixture:
    """N(0, 1) as a mixture of one."""
    zero = torch.zeros(1, dtype=torch.float64)
    return Mixture(zero, Normal(zero, torch.ones_like(zero)))


class Recalibrated(Distribution):
    """A batch of scalar mixtures whose levels have been corrected: F'(y) = H(Phi^-1(F(y))).

    H is the law of the normal scores z = Phi^-1(F(y)) that a model had on rows it had not seen. The density is
    p(y) h(z)/phi(z), the quantiles are F^-1(Phi(H^-1(q))). At an atom or a count the mass is the jump of F'. It answers
    as a `Mixture` does, without gradients; `mean`, `variance` and `crps` by quadrature of F', relative errors about
    1e-8 for smooth densities.

    Parameters
    ----------
    mixture
        As predicted, scalar.
    scores
        H, a scalar mixture whose batch_shape broadcasts to that of `mixture`.

    References
    ----------
    Kuleshov, Fenner and Ermon (2018), Accurate uncertainties for deep learning using calibrated regression; Dey et al.
    (2022), Calibrated predictive distributions via diagnostics for conditional coverage, where H depends on x.

    Examples
    --------
    >>> mixture = Mixture(torch.zeros(1), Normal(torch.zeros(1), torch.tensor([2.0])))
    >>> half = Mixture(torch.zeros(1), Normal(torch.zeros(1), torch.tensor([0.5])))  # too wide by a factor of 2
    >>> mended = Recalibrated(mixture, half)
    >>> round(mended.stddev.item(), 4), round(mended.icdf(0.8413447).item(), 4)
    (1.0, 1.0)
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore  # coded checks of our own instead

    def __init__(self, mixture: Mixture, scores: Mixture):
        self.mixture = mixture.detach()
        self.scores = scores.detach().to(mixture.dtype).expand(mixture.batch_shape)
        self.family = mixture._scalar_family("recalibration")
        super().__init__(mixture.batch_shape, torch.Size(), validate_args=False)

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the answers."""
        return self.mixture.dtype

    @property
    def atoms(self) -> Tensor | None:
        """Those of the mixture, whose masses are others now."""
        return self.mixture.atoms

    def __len__(self) -> int:
        return len(self.mixture)

    def __getitem__(self, index: Any) -> "Recalibrated":
        """The laws at `index` of the batch."""
        return Recalibrated(self.mixture[index], self.scores[index])

    def __repr__(self) -> str:
        return f"Recalibrated({self.mixture!r}, {self.scores.n_components} components of scores)"

    @torch.no_grad()
    def log_prob(self, value: Tensor | ArrayLike) -> Tensor:
        """Log density, in nats per unit of y; at an atom and of a count the log mass. Shapes as for `Mixture`."""
        value = self.mixture._checked(value).to(self.dtype)
        z = _reached(self.mixture, value)
        finite = z.clamp(-_FARTHEST_NUMBER, _FARTHEST_NUMBER)
        log_ratio = self.scores.log_prob(finite) + 0.5 * finite.square() + 0.5 * math.log(2 * math.pi)
        log_density = self.mixture.log_prob(value) + log_ratio
        if self.mixture.atoms is None and not self.family.is_discrete:
            return log_density
        log_mass = self.scores.log_prob_interval(_before(self.mixture, value), z)
        if self.family.is_discrete:
            return log_mass
        is_atom = (value.unsqueeze(-1) == self.mixture.merged_atoms().atoms).any(-1)  # pyright: ignore
        return torch.where(is_atom, log_mass, log_density)

    @torch.no_grad()
    def cdf(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y <= value)."""
        return self.scores.cdf(_reached(self.mixture, self.mixture._checked(value).to(self.dtype)))

    @torch.no_grad()
    def survival(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y >= value)."""
        return self.scores.survival(_before(self.mixture, self.mixture._checked(value).to(self.dtype)))

    @torch.no_grad()
    def icdf(self, value: Tensor | ArrayLike) -> Tensor:
        """The least y at which the cdf reaches `value`."""
        return self._at(self.scores.icdf(value))

    @property
    def median(self) -> Float[Tensor, "*batch"]:
        """The 50% quantile."""
        return self.icdf(0.5)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] | torch.Size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws, shape sample_shape + batch_shape."""
        return self._at(self.scores.sample(sample_shape, generator))

    def _at(self, z: Tensor) -> Tensor:
        """The quantiles of the mixture at normal scores."""
        is_upper, level = z > 0, standard_cdf(-z.abs())
        if not bool(is_upper.any()):
            return self.mixture.icdf(level)
        return torch.where(is_upper, self.mixture.isf(level), self.mixture.icdf(level))

    @property
    def mean(self) -> Float[Tensor, "*batch"]:
        """E[Y]."""
        return self._by_block(Recalibrated._moments, torch.zeros(self.batch_shape, dtype=self.dtype))[..., 0]

    @property
    def variance(self) -> Float[Tensor, "*batch"]:
        """Var[Y]."""
        return self._by_block(Recalibrated._moments, torch.zeros(self.batch_shape, dtype=self.dtype))[..., 1]

    def crps(self, y: Tensor) -> Float[Tensor, "*batch"]:
        """The continuous ranked probability score of each row, in units of y; y of shape batch_shape."""
        return self._by_block(Recalibrated._crps, y.to(self.dtype))

    @torch.no_grad()
    def highest_density_region(self, level: Tensor | float) -> Region:
        """The smallest set with the probability `level`, nearly: the shortest of 500 cells of equal probability.

        It has at least this probability, and at most a cell's more; there are 20 cells in what is left out, at most
        5,000 in all. A level above 0.9996 reaches to the ends of the support. Of counts it is the most probable ones.
        """
        level = self.mixture._checked_level(level)
        parts = self.mixture.flat(), self.scores.flat()
        flat, levels = Recalibrated(*parts), level.reshape(-1)
        if self.family.is_discrete:
            numbers, _ = whole_numbers(self.family, flat.mixture)
            lower, upper, _ = heaviest_numbers(numbers, flat.log_prob(numbers[:, None]).exp().mT, levels)
            return self._region(lower, upper, 1)
        share_left_out = (1 - levels.max().item()) if len(levels) else 1.0
        n_cells = min(_MOST_CELLS, max(_FEWEST_CELLS, math.ceil(_CELLS_LEFT_OUT / max(share_left_out, 1e-9))))
        ends = flat.icdf(torch.linspace(0, 1, n_cells + 1, dtype=self.dtype)[:, None]).mT  # (n, cells + 1)
        length = (ends[:, 1:] - ends[:, :-1]).nan_to_num(torch.inf)
        rank = length.argsort(dim=-1, stable=True).argsort(dim=-1)
        is_in = rank < (levels * n_cells - 1e-9).ceil()[:, None]
        padded = torch.nn.functional.pad(is_in, (1, 1))
        starts = (padded[:, 1:-1] & ~padded[:, :-2]).nonzero(as_tuple=True)
        stops = (padded[:, 1:-1] & ~padded[:, 2:]).nonzero(as_tuple=True)
        (lower,) = by_row(starts[0], len(flat), ends[:, :-1][starts])
        (upper,) = by_row(stops[0], len(flat), ends[:, 1:][stops])
        return self._region(lower, upper, 0)

    def _region(self, lower: Tensor, upper: Tensor, unit: int) -> Region:
        size = (upper - lower + unit).nansum(-1)
        lower, upper = (end.reshape(*self.batch_shape, -1) for end in (lower, upper))
        return Region(lower, upper, size.reshape(self.batch_shape))

    def _by_block(self, answer: Any, y: Tensor) -> Tensor:
        """`answer(rows, y)` for blocks of rows."""
        flat, y_flat = Recalibrated(self.mixture.flat(), self.scores.flat()), y.reshape(-1)
        starts = range(0, len(y_flat), ROWS_TO_INTEGRATE) if len(y_flat) else [0]
        blocks = [slice(start, start + ROWS_TO_INTEGRATE) for start in starts]
        with torch.no_grad():
            parts = torch.cat([answer(flat[block], y_flat[block]) for block in blocks])
        return parts.reshape(*self.batch_shape, *parts.shape[1:])

    def _nodes(self, breaks: Tensor) -> tuple[Tensor, Tensor]:
        """Points and weights, (P, n), for integrals of functions of F', which may jump at the breaks, (n,)."""
        mixture = self.mixture
        if self.family.is_discrete:  # F' is constant between whole numbers; the middles stand for it
            numbers, _ = whole_numbers(self.family, mixture)
            ends = torch.cat([numbers[[0, -1]], breaks]).nan_to_num()
            numbers = torch.arange(ends.min().item(), ends.max().item() + 1, dtype=self.dtype)
            nodes = (numbers + 0.5)[:, None].expand(-1, len(breaks))
            return nodes, torch.ones_like(nodes)
        points = breaks[:, None] if mixture.atoms is None else torch.cat([breaks[:, None], mixture.atoms], -1)
        weights = mixture.weights[:, : mixture.n_components]
        return quadrature(self.family, mixture.components, points, weights=weights)

    def _moments(self, _: Tensor) -> Tensor:
        """Mean and variance, (n, 2): the integrals of 1 - F' above the median and of F' below it."""
        centre = self.mixture.median
        nodes, weights = self._nodes(centre)
        above, distance = nodes > centre, (nodes - centre).abs()
        tail = weights * torch.where(above, self.survival(nodes), self.cdf(nodes))
        shift = torch.where(above, tail, -tail).sum(0)
        return torch.stack([centre + shift, 2 * (distance * tail).sum(0) - shift.square()], -1)

    def _crps(self, y: Tensor) -> Tensor:
        nodes, weights = self._nodes(y)
        return (weights * torch.where(nodes < y, self.cdf(nodes), self.survival(nodes)).square()).sum(0)
