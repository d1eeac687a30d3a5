"""What a manager is told: is the model good, can its uncertainty be trusted, what is to be done."""

import math

import numpy as np

from ..diagnosis import Diagnosis
from ..evaluation import Evaluation

_SURE = 2.0
_SLIGHT = 0.02
"""A coverage that is off by no more is off slightly."""
ADVICE = {
    "D-unconditional": "check that each row's features belong to its value, since a guess without them does better",
    "D-extrapolation": "gather rows like the new ones, many of which are unlike all that it has learned from",
    "D-category-unseen": "mend or learn the categories that it has never seen",
    "D-missing-new": "fill in values that are missing here and were always there before",
    "D-steps-skipped": "look for extreme values, at which its training stumbled",
    "D-cut-off": "train it for longer, since it was still learning when it was stopped",
    "D-values-repeat": "give the values that come again and again a probability of their own",
    "D-scale-floor": "tell it about values that repeat or are rounded, on which it is far too sure",
    "D-bias": "find out why what came lies to one side of what was forecast",
    "D-dispersion": "correct how wide its ranges are",
    "D-shape": "allow its forecasts another shape",
    "D-restarts": "train it from more starts, since they end in different places",
    "D-components-dead": "make it smaller, since most of its parts lie idle",
    "D-components-duplicated": "make it smaller, since its parts repeat each other",
    "D-components-used": "give it another number of parts",
}
"""Of each finding of the doctor, what to do in plain words; the most urgent first."""


def in_brief(result: Evaluation, diagnosis: Diagnosis | None, target: str) -> list[str]:
    """Three sentences.

    Parameters
    ----------
    result
        Of rows with references: 20 at least.
    diagnosis
        Of the same rows, if the model can be diagnosed.
    target
        What is forecast.
    """
    return [_is_it_good(result, target), _can_it_be_trusted(result), _what_to_do(result, diagnosis)]


def is_useful(result: Evaluation) -> bool:
    """Whether it's surely better than a forecast that ignores the features, and rules out nothing that came."""
    skill, error = _skill(result, "unconditional")
    return math.isfinite(result["nll"]) and skill > _SURE * error


def _is_it_good(result: Evaluation, target: str) -> str:
    n = len(result.by_row)
    n_impossible = int(np.isinf(result.by_row["nll"]).sum())
    if n_impossible:
        return f"The model can't be relied on: it held {n_impossible:,} of the {n:,} values that came to be impossible."
    skill, error = _skill(result, "unconditional")
    if math.isnan(skill):
        return f"The model can't be judged on these {n:,} rows, in which a guess that ignores the features is exact."
    forecasts = f"on {n:,} rows its forecasts of {target} err"
    if abs(skill) <= _SURE * error:
        return (
            f"The model has not shown that it is useful: {forecasts} no less than guesses that ignore the features "
            f"({100 * skill:+.1f}% ± {100 * error:.1f}%)."
        )
    if skill < 0:
        return f"The model is not useful: {forecasts} {_percent(-skill)} more than guesses that ignore the features."
    text = f"The model is useful: {forecasts} {_percent(skill)} less than guesses that ignore the features"
    line, line_error = _skill(result, "linear")
    if not math.isnan(line):
        if abs(line) <= _SURE * line_error:
            text += ", but not surely less than those of a straight line, which is simpler"
        elif line < 0:
            text += f", but {_percent(-line)} more than those of a straight line, which is better"
        else:
            text += f" and {_percent(line)} less than those of a straight line"
    gain, error, _ = figures_of(result, "nll_gain_unconditional")
    if gain < -_SURE * error:
        text += ", though a few values came that it had all but ruled out"
    return f"{text}."


def _can_it_be_trusted(result: Evaluation) -> str:
    kind = "central" if "central_coverage_90" in result.table.index else "hdr"
    held, error, right = figures_of(result, f"{kind}_coverage_90")
    figures = f"the ranges that should hold {_percent(right)} of the values held {_percent(held)}"
    faults = result.faults
    if not faults:
        few = ", as far as so few rows can tell" if error > _SLIGHT else ""
        return f"Its uncertainty can be trusted{few}: {figures}."
    slightly = "slightly " if abs(held - right) <= _SLIGHT else ""
    told = {"narrow": f"{slightly}too sure of itself", "wide": f"{slightly}less sure than it could be"}
    if faults == ("shape",):
        return f"Its uncertainty is nearly right: {figures}, but its forecasts do not have quite the right shape."
    side = next((fault for fault in faults if fault in ("low", "high")), None)
    spread = next((told[fault] for fault in faults if fault in told), None)
    if side is None:
        return f"It is {spread}: {figures}."
    share = float((result.by_row["pit"] > 0.5).mean())
    where = (
        f"{_percent(share if side == 'low' else 1 - share)} of the values came out {_BEYOND[side]} its middle forecast"
    )
    also = f" and {spread}" if spread else ""
    return f"Its forecasts are too {side} on the whole{also}: {where}, and {figures}."


_BEYOND = {"low": "above", "high": "below"}


def _what_to_do(result: Evaluation, diagnosis: Diagnosis | None) -> str:
    codes = [code for code in ADVICE if diagnosis and any(one.code == code for one in diagnosis.warnings)]
    others = len(diagnosis.warnings) - 1 if diagnosis else 0
    more = f", and see {others} more below" if others > 0 else ""
    if not is_useful(result):
        first = ADVICE[codes[0]] if codes else "find features that say more of it, or gather more rows"
        return f"Do not use it yet: {first}{more}."
    line, error = _skill(result, "linear")
    if line < -_SURE * error:
        first = ADVICE[codes[0]] if codes else "find out what the model makes worse"
        return f"Take a straight line in its place, or {first}{more}."
    if codes:
        return f"Before you rely on it, {ADVICE[codes[0]]}{more}."
    if "narrow" in result.faults or "wide" in result.faults:
        return "It may be used; to make its ranges right, calibrate it on rows that it has not learned from."
    if result.faults:
        return "It may be used with care: see below where its forecasts are off."
    return "It may be used as it is, for rows like these, and best with its ranges and not its middle forecast alone."


def _skill(result: Evaluation, reference: str) -> tuple[float, float]:
    for score in ("crps", "energy"):
        name = f"{score}_skill_{reference}"
        if name in result.table.index:
            value, error, _ = figures_of(result, name)
            return value, error
    return math.nan, math.nan


def figures_of(result: Evaluation, metric: str) -> list[float]:
    """Value, standard error, and what is right."""
    return [float(number) for number in result.table.loc[metric].to_numpy(np.float64).ravel()]


def _percent(share: float) -> str:
    """Whole percent; to a tenth where that hides something."""
    is_extreme = 0 < share < 0.01 or 0.99 < share < 1
    return f"{100 * share:.1f}%" if is_extreme else f"{100 * share:.0f}%"
