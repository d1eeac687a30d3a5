"""The training doctor: how a fitted model fares, in sentences, and what to change."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from .families import ScalarFamily
from .mixture import Mixture
from .nets import MDN
from .revival import is_dead, responsibilities, usage
from .rows import Rows
from .scores import pit, rosenblatt
from .targets import find_atoms
from .task import Sample
from .training import starting_mixture

Severity = Literal["warning", "note", "good"]
_SEVERITIES: tuple[Severity, ...] = ("warning", "note", "good")
_MOST_ROWS, _ROWS_TO_COMPARE, _DRAWS, _DENSITIES_TO_COMPARE = 5_000, 200, 16, 4_000_000
_SURE, _AS_GOOD_AS_SURE = 1e-4, 4.0
"""Of a test: the level of its P-value, and how many standard errors make as much of a two-sided one."""
_ERRORS_OF_A_GAIN, _ERRORS_OF_NONE = 3.0, 2.0
_MUCH_DISPERSION, _MUCH_BIAS, _MUCH_SHAPE = 0.1, 0.02, 0.05
_AT_THE_FLOOR, _MANY_AT_THE_FLOOR = 0.01, 0.05
_ALIKE, _MANY_ALIKE = 0.01, 0.1
_MANY_DEAD = 0.5
_WIDE_SPREAD_NATS, _STILL_FALLING_NATS, _MANY_SKIPPED = 0.1, 0.01, 0.01
_FEW_IN_USE, _ALL_IN_USE, _N_REGIONS, _N_BINS = 0.5, 0.9, 4, 10
_UNCONDITIONAL_COMPONENTS, _N_FOLDS, _MOST_ATOMS, _FEWEST_ROWS_TO_COMPARE = 5, 5, 20, 20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    code: str
    """Stable name; docs/doctor.md has an entry for each."""
    severity: Severity
    """``"warning"``: change something; ``"note"``: know it; ``"good"``: nothing to do."""
    what: str
    """What was found, a sentence with its figures."""
    advice: str
    """What to change, a sentence; empty where there is nothing to change."""

    def __str__(self) -> str:
        return f"{self.severity} {self.code}: {self.what} {self.advice}".rstrip()


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What the doctor found: print it, or look at `findings`, `table` and `regions`."""

    findings: tuple[Finding, ...]
    """Warnings first, then notes, then what is good."""
    regions: pd.DataFrame
    """Rows, and the effective number of components, in quarters of the feature with which that number changes most;
    empty without rows, and without numbers among the features."""
    n_rows: int
    """That were looked at; 0 where only the report of training was."""

    @property
    def table(self) -> pd.DataFrame:
        """The findings, one a row."""
        return pd.DataFrame([asdict(finding) for finding in self.findings])

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that ask for a change."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def __getitem__(self, code: str) -> Finding:
        """The finding with this code."""
        return next(finding for finding in self.findings if finding.code == code)

    def __contains__(self, code: str) -> bool:
        return any(finding.code == code for finding in self.findings)

    def __str__(self) -> str:
        looked_at = f"{self.n_rows:,} rows" if self.n_rows else "no rows, only the report of training"
        return "\n".join([f"Looked at {looked_at}.", *map(str, self.findings)])

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        regions = self.regions.to_dict(orient="records")
        return {"n_rows": self.n_rows, "findings": [asdict(one) for one in self.findings], "regions": regions}


@torch.no_grad()
def diagnose(model: Any, sample: Sample | None) -> Diagnosis:
    """See `MDNRegressor.diagnose`, whose model and checked rows these are."""
    found, regions = [*_training(model)], pd.DataFrame()
    if sample is None:
        found += [_dead(torch.tensor(model.fit_report_.component_usage)), *_restarts_reported(model)]
        found += _start(model)
    else:
        found += _foreign(model, sample)
        if len(sample) > _MOST_ROWS:
            some = np.random.RandomState(0).choice(len(sample), _MOST_ROWS, replace=False)
            sample = sample.take(np.sort(some))
        look = _Look.at(model, sample)
        regions, effective = _regions(model, sample, look)
        found += [look.dead(), *look.duplicated(), *_in_use(model.n_components_, regions, effective)]
        repeats = [*_repeats(model, sample)]
        found += [*look.restarts(), *look.floor(bool(repeats)), *repeats, look.unconditional()]
        found += look.calibration(model.fit_report_.n_train_rows)
    found.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(found), regions, 0 if sample is None else len(sample))


# What the report of training knows ------------------------------------------------------------------------------


def _training(model: Any) -> Iterator[Finding]:
    report = model.fit_report_
    recipe = model._recipe(report.n_train_rows)
    steps_of_an_epoch = math.ceil(report.n_train_rows / recipe.batch_size)
    most, _, n_annealed = recipe.epochs(steps_of_an_epoch)
    code, held_out = "D-cut-off", "held-out NLL" if report.n_valid_rows else "NLL"
    steady = report.valid_nll[: max(3, most - n_annealed)]
    gain = min(steady[: max(1, int(0.9 * len(steady)))], default=math.nan) - min(steady, default=math.nan)
    if recipe.max_epochs is not None and report.n_epochs >= most and gain > _STILL_FALLING_NATS:
        what = f"Training ended at {most} epochs; the last tenth at the full rate had still gained {gain:.3f} nats."
        yield Finding(code, "warning", what, "Raise max_epochs, or leave it to the preset.")
    else:
        is_known = recipe.max_epochs is not None or report.n_epochs < most
        stopped = f", and the {held_out} had stopped falling" if is_known else ""
        what = f"Training ran for {report.n_epochs} epochs{stopped}."
        yield Finding(code, "good", what, "")
    n_steps, n_skipped = max(1, report.n_epochs * steps_of_an_epoch), report.n_skipped_steps
    if n_skipped:
        is_bad = n_skipped > _MANY_SKIPPED * n_steps or any("back to the best" in event for event in report.events)
        what = f"{n_skipped} steps, of about {n_steps:,} and their repeats, were not finite and were skipped."
        advice = "Lower learning_rate, raise scale_floor, and look for extreme values in X and y."
        yield Finding("D-steps-skipped", "warning" if is_bad else "note", what, advice)


def _dead(share: Tensor) -> Finding:
    """From the share of the rows that each component answers for."""
    n, n_dead = len(share), int(is_dead(share).sum())
    if not n_dead:
        return Finding("D-components-dead", "good", f"All of {n} components answer for rows.", "")
    what = f"{n_dead} of {n} components are dead: each answers for less than 2% of an equal share of the rows."
    advice = "Fit with fewer components (n_components), and with revive=True; a dead one costs little else."
    return Finding("D-components-dead", "warning" if n_dead > _MANY_DEAD * n else "note", what, advice)


def _restarts_reported(model: Any) -> Iterator[Finding]:
    report = model.fit_report_
    nlls = np.array(report.restart_nlls)
    if len(nlls) < 2:
        return
    spread, may_spread = float(np.ptp(nlls)), _WIDE_SPREAD_NATS
    if len(model.networks_) > 1 and report.n_valid_rows:  # each held out other rows
        may_spread = max(may_spread, _AS_GOOD_AS_SURE / math.sqrt(report.n_valid_rows))
    yield _restarts(len(nlls), nlls.min(), nlls.max(), spread > may_spread)


def _restarts(n: int, low: float, high: float, is_wide: bool) -> Finding:
    what = f"The NLL of {n} restarts lies between {low:.3f} and {high:.3f} nats"
    if not is_wide:
        return Finding("D-restarts", "good", f"{what}, which is close.", "")
    advice = "Raise n_restarts, train for longer, or lower learning_rate: restarts end in optima that differ."
    return Finding("D-restarts", "note", f"{what}, which is more than chance.", advice)


def _start(model: Any) -> Iterator[Finding]:
    report = model.fit_report_
    if report.best_epoch < 0:
        what = "No epoch was better than the start, the density of y without features."
        yield Finding("D-unconditional", "warning", what, _USELESS)
    elif report.n_valid_rows:
        gain = report.start_nll - report.best_nll
        what = f"Features have gained {gain:.3f} nats on held-out rows over the start, the density of y without them."
        yield Finding("D-unconditional", "good", what, "")


# What features hold ---------------------------------------------------------------------------------------------


def _foreign(model: Any, sample: Sample) -> Iterator[Finding]:
    unknown = model.encoder_.unknown(sample.X)
    beyond, n = unknown["beyond"], len(sample)
    n_learned, p, k = model.fit_report_.n_train_rows, beyond.shape[1], int(beyond.any(axis=1).sum())
    if p and not k:
        yield Finding("D-extrapolation", "good", "No row lies outside the ranges that training saw.", "")
    elif k:
        # A new row of the same law is beyond either end of a feature with probability 2/(N + 1).
        a, b = 2 * p, n_learned + 1 - 2 * p
        is_more = b > 0 and stats.betabinom.sf(k - 1, n, a, b) < _SURE
        chance = f"about {min(1.0, a / (n_learned + 1)):.2%} would be by chance"
        what = (
            f"{k} of {n} rows ({k / n:.2%}) lie outside the ranges that training saw, in {_columns(beyond)}; {chance}."
        )
        advice = "Do not trust the densities of these rows; gather training rows there, and see uncertainty(X)."
        yield Finding("D-extrapolation", "warning" if is_more else "note", what, advice)
    if (count := int(unknown["unseen"].any(axis=1).sum())) > 0:
        what = f"{count} of {n} rows have a category that training never saw, in {_columns(unknown['unseen'])}."
        yield Finding("D-category-unseen", "warning", what, "Correct the spelling, or fit again with such rows.")
    if (count := int(unknown["missing"].any(axis=1).sum())) > 0:
        what = f"{count} of {n} rows lack a value where no training row did, in {_columns(unknown['missing'])}."
        yield Finding("D-missing-new", "warning", what, "Fill it in, or fit again with rows that lack it.")


def _columns(cells: pd.DataFrame) -> str:
    """The columns with the most such cells."""
    counts = cells.sum().sort_values(ascending=False)
    names = [repr(str(name)) for name in counts[counts > 0].index]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# What the predicted densities say of rows with a known target ---------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """Rows, and what each network predicts for them, in the network's units."""

    networks: list[MDN]
    rows: Rows
    pool: Mixture
    losses: list[Tensor]
    """NLL of each row under each network."""
    log_unit: float
    """What an NLL gains in the user's units."""
    y: NDArray[np.float64]
    """One value for each row, in the user's units."""

    @classmethod
    def at(cls, model: Any, sample: Sample) -> _Look:
        frame, networks, share = model._frame, model.networks_, model.background_share_
        rows = frame.rows(sample).double()
        predicted = [network(rows.x) for network in networks]
        losses, weights = [rows.nll(mixture) for mixture in predicted], [(1 - share) / len(networks)] * len(networks)
        if model.background_ is not None:
            predicted, weights = [*predicted, model.background_(rows.x)], [*weights, share]
        pool, log_unit = Mixture.pool(predicted, weights), frame.units.log_scale(rows)
        return cls(networks, rows, pool, losses, log_unit, sample.target.points)

    def dead(self) -> Finding:
        """Components that answer for next to no row, of all networks."""
        shares = torch.cat([usage(network, self.rows) for network in self.networks])
        return _dead(shares / len(self.networks))

    def duplicated(self) -> Iterator[Finding]:
        """Components of one member with the same density in all rows: the squared Hellinger distance, by draws."""
        generator, n_alike, n = torch.Generator().manual_seed(0), 0, 0
        for network in self.networks:
            k, n_members = network.head.n_components, network.head.n_members or 1
            if k == 1:
                return
            most = max(10, min(_ROWS_TO_COMPARE, _DENSITIES_TO_COMPARE // (_DRAWS * n_members * k * k)))
            stride = math.ceil(len(self.rows) / most)
            mixture = network.of_members(self.rows.x[::stride]).continuous
            parts, family = mixture.split(), mixture.family
            axis = len(parts.batch_shape) - 1
            draws = parts.sample((_DRAWS,), generator).unsqueeze(axis + 2)
            others = family.map(mixture.components, lambda part, axis=axis: part.unsqueeze(axis))
            log_prob = family.log_prob(others, draws)  # (draws, rows, members, k that drew, k)
            own = log_prob.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
            affinity = (0.5 * (log_prob - own)).exp().nan_to_num(0).mean((0, 1)).clamp(max=1)
            distance = 1 - 0.5 * (affinity + affinity.mT)
            n_alike += int(((distance < _ALIKE).tril(-1)).any(-1).sum())
            n += k * n_members
        what = f"{n_alike} of {n} components repeat another of their network, in all rows."
        if n_alike <= _MANY_ALIKE * n:
            yield Finding("D-components-duplicated", "good", what, "")
        else:
            advice = "Fit with fewer components (n_components); a repeated one costs little else."
            yield Finding("D-components-duplicated", "note", what, advice)

    def restarts(self) -> Iterator[Finding]:
        """Pooled networks on the same rows, beside the best of them."""
        if len(self.losses) < 2:
            return
        means = [loss.mean().item() for loss in self.losses]
        best = self.losses[int(np.argmin(means))]
        is_wide = False
        for loss in self.losses:
            excess = loss - best
            is_sure = excess.mean() > _AS_GOOD_AS_SURE * excess.std() / math.sqrt(len(excess))
            is_wide |= bool(is_sure) and excess.mean().item() > _WIDE_SPREAD_NATS
        yield _restarts(len(means), min(means) + self.log_unit, max(means) + self.log_unit, is_wide)

    def floor(self, has_repeats: bool) -> Iterator[Finding]:
        """Rows explained by components whose scale is mostly floor, and the values of y that repeat among them."""
        at_floor = torch.zeros(len(self.rows), dtype=torch.float64)
        for network in self.networks:
            head = network.head
            outputs = head.linear(network.backbone(self.rows.x))
            raw = head.split(outputs)[1]
            floored, free = (head.family.build(raw, floor).stddev for floor in (head.scale_floor, 0.0))
            is_low = free < 0.5 * floored
            is_low = is_low if head.family.covariance_type is None else is_low.any(-1)
            share = responsibilities(network, self.rows) * is_low.flatten(1)
            at_floor += share.sum(-1).nan_to_num(0) / len(self.networks)
        share = at_floor.mean().item()
        if share <= _AT_THE_FLOOR:
            what = f"{share:.1%} of the rows are explained by components at the floor of the scale."
            yield Finding("D-scale-floor", "good", what, "")
            return
        what = f"{share:.1%} of the rows are explained by components whose scale is mostly its floor"
        advice = "Lower scale_floor if y is so precise, and leave out features that give y away."
        if self.y.ndim == 1:
            by_value = pd.Series(at_floor.numpy()).groupby(self.y + 0.0).agg(["sum", "size"])  # -0 is 0
            repeated = by_value.loc[by_value["size"] > 1, "sum"].sort_values(ascending=False)
            if repeated.sum() > 0.5 * at_floor.sum().item():
                n, shown = len(repeated), ", ".join(f"{value:g}" for value in repeated.index[:5])
                what += f", most where y repeats: {shown}{f' and {n - 5} more values' if n > 5 else ''}"
                advice = _ATOMS if has_repeats else _FEW_VALUES if n <= _MOST_ATOMS else _MANY_VALUES
        what += "."
        yield Finding("D-scale-floor", "warning" if share > _MANY_AT_THE_FLOOR else "note", what, advice)

    def unconditional(self) -> Finding:
        """Beside the density of y without features, fitted to four fifths of the same rows to judge the others by."""
        head, rows = self.networks[0].head, self.rows
        fold, losses = torch.arange(len(rows)) % _N_FOLDS, torch.empty(len(rows), dtype=torch.float64)
        for i in range(min(_N_FOLDS, len(rows))):
            learn, judge = rows.take(fold != i), rows.take(fold == i)
            y, weight = learn.points(head.family), learn.weight
            start = starting_mixture(y, _UNCONDITIONAL_COMPONENTS, head.family, weight, 0, head.atoms)
            floored = head.family.build(head.family.unbuild(start.components, head.scale_floor), head.scale_floor)
            losses[fold == i] = judge.nll(Mixture(start.logits, floored, start.atoms).expand((len(judge),)))
        gains = losses - rows.nll(self.pool)
        gain, error = gains.mean().item(), gains.std().item() / math.sqrt(len(gains))
        code, figures = "D-unconditional", f"by {abs(gain):.3f} ± {error:.3f} nats a row"
        if len(gains) < _FEWEST_ROWS_TO_COMPARE:
            what = f"Whether the model is better than the density of y alone can't be told from {len(gains)} rows."
            return Finding(code, "note", what, "Look at more rows.")
        if gain < -_ERRORS_OF_A_GAIN * error:
            return Finding(code, "warning", f"The model is worse than the density of y alone, {figures}.", _USELESS)
        if gain < _ERRORS_OF_NONE * error:
            what = (
                f"The model can't be told from the density of y alone: better by {gain:.3f} ± {error:.3f} nats a row."
            )
            return Finding(code, "note", what, "Add features that say something of y, or take more rows.")
        return Finding(code, "good", f"The model is better than the density of y alone, {figures}.", "")

    def calibration(self, n_learned: int) -> Iterator[Finding]:
        """By the PIT, whose mean, variance and histogram are known where the forecasts are right.

        A density that was learned from so many rows is off by what chance does to these, as a frequency is off by what
        it does to the rows that are looked at: both count.
        """
        u = self._levels()
        n, off = 1 / (1 / len(u) + 1 / n_learned), u.mean() - 0.5
        is_biased = abs(off) > max(_MUCH_BIAS, _AS_GOOD_AS_SURE / math.sqrt(12 * n))
        what = f"The mean PIT is {u.mean():.3f}, where 0.5 is right"
        if is_biased:
            way = "low" if off > 0 else "high"
            advice = "Train for longer, add features or components, and check that y is of the law that fit saw."
            yield Finding("D-bias", "warning", f"{what}: forecasts are too {way}.", advice)
        else:
            yield Finding("D-bias", "good", f"{what}.", "")
        ratio = 12 * float(np.mean((u - u.mean()) ** 2))
        is_off = abs(ratio - 1) > max(_MUCH_DISPERSION, _AS_GOOD_AS_SURE * 12 / math.sqrt(180 * n))
        what = f"The variance of the PIT is {ratio:.2f} of what is right"
        if is_off:
            way = "narrow" if ratio > 1 else "wide"
            what += f": densities are too {way}{_as_of_normal(ratio)}."
            yield Finding("D-dispersion", "warning", what, _NARROW if ratio > 1 else _WIDE)
        else:
            yield Finding("D-dispersion", "good", f"{what}.", "")
        counts = np.bincount(np.minimum((u * _N_BINS).astype(int), _N_BINS - 1), minlength=_N_BINS)
        excess = counts / len(u) - 1 / _N_BINS
        distance, square = 0.5 * float(np.abs(excess).sum()), n * _N_BINS * float((excess**2).sum())
        what = f"The histogram of the PIT is {distance:.3f} from flat, in total variation"
        if distance > _MUCH_SHAPE and stats.chi2.sf(square, _N_BINS - 1) < _SURE and not (is_biased or is_off):
            advice = (
                'Add components (n_components, or "auto"), try another family, and look for values of y that repeat.'
            )
            yield Finding("D-shape", "warning", f"{what}, more than chance: densities have another shape.", advice)
        elif not (is_biased or is_off):
            yield Finding("D-shape", "good", f"{what}.", "")

    def _levels(self) -> NDArray[np.float64]:
        """Uniform where the forecasts are right; of a censored target, drawn within its interval."""
        rows, generator = self.rows, torch.Generator().manual_seed(0)
        if rows.upper is not None:
            before = 1 - self.pool.survival(rows.y)
            after = self.pool.cdf(rows.upper)
            u = before + torch.rand(len(rows), generator=generator, dtype=torch.float64) * (after - before)
        elif isinstance(self.pool.family, ScalarFamily):
            u = pit(self.pool, rows.y, generator)
        else:
            u = rosenblatt(self.pool, rows.y, generator).flatten()
        return u[u.isfinite()].clamp(0, 1).numpy()


_NARROW = 'Fit with preset="balanced" or "best", or more noise, and judge by rows that training did not see.'
_USELESS = (
    "Check that features and y belong together, hold rows out (validation_fraction), and take a preset that bounds "
    'what a misleading row costs, such as "balanced".'
)
_ATOMS = 'Fit with atoms="auto", or with a list of the values that repeat: they get a probability of their own.'
_FEW_VALUES = "Give the values that repeat a probability of their own, as a list: atoms=[...]."
_MANY_VALUES = "Say how y was rounded: give fit intervals, from half a step below each value to half a step above."
_WIDE = (
    "Train for longer (max_epochs, patience), add components, take a family with heavier tails, or lower scale_floor."
)


def _as_of_normal(ratio: float) -> str:
    """By how much the scale of a normal forecast of normal data is off, where the PIT has this variance."""
    part = math.sin(math.pi * ratio / 6)  # Var = asin(s^2 / (1 + s^2)) / 2 pi, of s = true scale / forecast scale
    if not 0 < part < 0.99 or ratio > 3:
        return ""
    off = math.sqrt((1 - part) / part) - 1
    return f", as normal ones whose scale is {abs(off):.0%} too {'small' if off < 0 else 'large'}"


def _repeats(model: Any, sample: Sample) -> Iterator[Finding]:
    family = model.family_
    if not isinstance(family, ScalarFamily) or family.is_discrete:
        return
    values = [value for value in find_atoms(sample.target, sample.weight) if value not in model.atoms_]
    if values:
        shares = [np.mean(sample.target.values == value) for value in values]
        listed = ", ".join(f"{value:g} ({share:.1%})" for value, share in zip(values, shares, strict=True))
        severity = "warning" if sum(shares) > _MANY_AT_THE_FLOOR else "note"
        yield Finding(
            "D-values-repeat", severity, f"Values of y repeat beyond what a density allows: {listed}.", _ATOMS
        )


def _regions(model: Any, sample: Sample, look: _Look) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Of each row the effective number of components in a network or member, and its means by regions of x."""
    effective = torch.zeros(len(sample), dtype=torch.float64)
    for network in look.networks:
        weights = network.of_members(look.rows.x).continuous.weights
        effective += torch.special.entr(weights).sum(-1).exp().mean(-1) / len(look.networks)
    number = pd.Series(effective.numpy(), name="effective_components")
    best, most = pd.DataFrame(), -math.inf
    for name, values in model.encoder_.numbers(sample.X).items():
        quarters = pd.qcut(values, _N_REGIONS, duplicates="drop")
        found = number.groupby(quarters, observed=True).agg(["size", "mean"])
        change = float(np.average((found["mean"] - number.mean()) ** 2, weights=found["size"])) if len(found) else -1
        if len(found) and change > most:
            most, ends = change, found.index
            best = pd.DataFrame(
                {
                    "feature": str(name),
                    "low": [float(end.left) for end in ends],
                    "high": [float(end.right) for end in ends],
                    "rows": found["size"].to_numpy(),
                    "effective_components": found["mean"].to_numpy(),
                }
            )
    return best, effective.numpy()


def _in_use(k: int, regions: pd.DataFrame, effective: NDArray[np.float64]) -> Iterator[Finding]:
    if k == 1:
        return
    what = f"Of {k} components, {effective.mean():.1f} are in use by their effective number"
    if len(regions) > 1:
        order = regions["effective_components"].to_numpy().argsort()
        low, high = regions.iloc[order[[0, -1]]].to_dict(orient="records")
        ends = [
            f"{one['effective_components']:.1f} where {one['low']:.3g} < {one['feature']!r} <= {one['high']:.3g}"
            for one in (low, high)
        ]
        what += f": {ends[0]}, {ends[1]}"
    enough = math.ceil(np.quantile(effective, 0.95) - 0.1)
    if enough < _FEW_IN_USE * k:
        advice = f"Try n_components={enough + 1}, which is quicker and easier to read."
        yield Finding("D-components-used", "note", f"{what}.", advice)
    elif effective.mean() > _ALL_IN_USE * k:
        advice = 'Try more of them: select_components, or n_components="auto", says whether they gain.'
        yield Finding("D-components-used", "note", f"{what}.", advice)
    else:
        yield Finding("D-components-used", "good", f"{what}.", "")
