"""One page on which a user sees whether a model is good, calibrated, what it's unsure of, and what to change."""

import os
import platform
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..calibrated import Calibrated, Conformal, network_of
from ..errors import MixturaError
from ..estimator import MDNRegressor
from ..evaluation import evaluate, predicted
from ..reference import FEWEST_ROWS
from ..storage import write_text
from ..targets import as_target
from .evidence import Case, Grid, Section, number, sections, take
from .words import in_brief

STYLE = (files(__name__) / "style.css").read_text(encoding="utf-8")
"""Of all pages that Mixtura writes."""
_PAGE = (files(__name__) / "page.html").read_text(encoding="utf-8")
_MOST_ROWS = 5_000


def write_report(
    model: Any,
    X: Any,
    y: Any,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    command: str | None = None,
    random_state: int = 0,
) -> None:
    """Write a page: three sentences that anyone understands, then the evidence in pictures and tables.

    One file of HTML that needs no network, runs no script, prints, and follows the reader's light or dark theme.

    Parameters
    ----------
    model
        Whatever has a ``predict_dist(X)``; an `MDNRegressor`, calibrated or not, is diagnosed too.
    X, y
        Rows that the model has not learned from, 20 at least. Of more than 5,000, so many at random are looked at.
    path
        Of the page, written whole or not at all.
    title
        Its heading.
    command
        How the page was made, to be shown on it.
    random_state
        Seed of all that is drawn.

    Raises
    ------
    MixturaError
        ``E-too-few-rows`` below 20 rows, ``E-target-type`` for intervals as a target, ``E-file-write``, and as
        `evaluate` does.

    Examples
    --------
    >>> X = np.random.default_rng(0).uniform(size=(300, 1))
    >>> y = X[:, 0] + 0.1 * np.random.default_rng(1).normal(size=300)
    >>> model = MDNRegressor(n_components=1, preset="plain", max_epochs=30, random_state=0).fit(X[:200], y[:200])
    >>> write_report(model, X[200:], y[200:], "report.html")
    """
    target = as_target(y)
    if target.upper is not None:
        fix = "leave out the rows whose target is an interval"
        raise MixturaError("E-target-type", "a target of intervals", "known values", fix)
    n = len(target)
    if n < FEWEST_ROWS:
        fix = "gather more, or look at model.predict_dist of each"
        raise MixturaError("E-too-few-rows", f"{n} rows", f"{FEWEST_ROWS} or more to judge a model by", fix)
    note = ""
    if n > _MOST_ROWS:
        some = np.sort(np.random.RandomState(random_state).choice(n, _MOST_ROWS, replace=False))
        note = f"{_MOST_ROWS:,} of {n:,} rows were taken at random"
        X, y = (take(part if isinstance(part, pd.DataFrame | pd.Series) else np.asarray(part), some) for part in (X, y))
    case = _case(model, X, y, random_state)
    found = [*sections(case), _how_made(case, command)]
    page = (
        Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        .from_string(_PAGE)
        .render(
            title=title or f"How well {case.target} is forecast",
            brief=in_brief(case.result, case.diagnosis, case.target),
            sections=found,
            style=Markup(STYLE),
            n_rows=f"{len(case.values):,}",
            note=note,
            date=f"{datetime.now():%Y-%m-%d}",
            version=version("mixtura"),
        )
    )
    write_text(path, page)


def _case(model: Any, X: Any, y: Any, seed: int) -> Case:
    density, target = predicted(model, X, y)
    network = network_of(model)
    network = network if isinstance(network, MDNRegressor) else None
    n_targets = 1 if target.values.ndim == 1 else target.values.shape[1]
    own = getattr(model, "target_names_", None) or target.names
    names = own or (["y"] if n_targets == 1 else [f"y{i}" for i in range(n_targets)])
    result = evaluate(density, X, y, random_state=seed)
    diagnosis = network.diagnose(X, y) if network else None
    return Case(model, network, X, y, density, target.values, result, diagnosis, [str(name) for name in names], seed)


def _how_made(case: Case, command: str | None) -> Section:
    lines: dict[str, str] = {"rows judged": f"{len(case.values):,}", "target": case.target}
    model, network = case.model, case.network
    if network is not None:
        report = network.fit_report_
        names = [column.name or f"x{i}" for i, column in enumerate(network.encoder_.columns_)]
        lines[f"features ({len(names)})"] = ", ".join(names)
        lines["model"] = (
            f"MDNRegressor, preset {network.preset}, {network.n_components_} components, {network.family_!r}"
        )
        if len(network.atoms_):
            lines["atoms"] = ", ".join(number(atom) for atom in network.atoms_)
        lines["rows learned from"] = f"{report.n_train_rows:,}, and {report.n_valid_rows:,} held out"
        lines["training"] = f"{report.n_epochs} epochs in {report.seconds:.1f} s"
    while isinstance(model, Calibrated | Conformal):
        lines["calibration"] = "; ".join(filter(None, [model.summary, lines.get("calibration", "")]))
        model = model.model
    lines["software"] = f"Mixtura {version('mixtura')}, torch {torch.__version__}, Python {platform.python_version()}"
    lines["date"] = f"{datetime.now():%Y-%m-%d %H:%M}"
    lines["seed"] = str(case.seed)
    if command:
        lines["command"] = command
    text = [
        "All figures are of rows that the model was given here. They hold for new rows of the same kind, and "
        "only if the model has not "
        "learned from these."
    ]
    return Section(
        "How was this made?",
        text,
        (),
        [Grid("Model, rows, and versions", ["what", "value"], list(map(list, lines.items())), 2)],
    )
