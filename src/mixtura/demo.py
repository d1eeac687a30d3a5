"""The demonstration: three conditional densities, each beside simpler models, with pictures and one page."""

import base64
import html
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from torch.distributions import MultivariateNormal, Normal

from .datasets import load_taxi, make_inverse_sine
from .errors import MixturaError
from .estimator import MDNRegressor
from .mixture import Mixture
from .plots import GREY, INK, ORANGE, plot_density, plot_fit, plot_mixture
from .report import STYLE

_COVERAGE = 0.9
_TIMES_SQUARE = (-73.9855, 40.7580)
_KM_PER_DEGREE = (84.4, 111.05)  # of longitude and latitude, at 40.75 degrees north


@dataclass
class Score:
    """How one model did on the held-out rows."""

    model: str
    nll: float
    """Mean, nats per unit of the target."""
    standard_error: float
    coverage: float
    """Share of rows inside their 90% interval (scalar) or highest-density region (vector)."""


@dataclass
class Section:
    """One question: what is asked, what came out."""

    title: str
    question: str
    unit: str
    scores: list[Score] = field(default_factory=list)
    figures: list[tuple[str, Figure, str]] = field(default_factory=list)
    """File name, picture, caption."""


def run_demo(folder: Path, console: Console, max_epochs: int = 300) -> list[Section]:
    """Learn the three densities, print a table for each, write pictures and index.html.

    Parameters
    ----------
    folder
        Where the pictures and the page go; made if need be.
    console
        Where the tables are printed.
    max_epochs
        Most passes over the rows of each network.

    Raises
    ------
    MixturaError
        ``E-file-write`` where the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").touch()
    except OSError as error:
        got = f"{folder}, which can't be written ({error})"
        raise MixturaError("E-file-write", got, "a folder", "choose another with -o") from error
    start = time.perf_counter()
    sections: list[Section] = []
    for name, ask in (("drop-off", ask_dropoff), ("duration", ask_duration), ("inverse", ask_inverse)):
        with console.status(f"learning: {name}"):
            section = ask(max_epochs)
        sections.append(section)
        console.print(_as_rich_table(section))
        for file_name, figure, _ in section.figures:
            figure.savefig(folder / file_name, dpi=110)
    (folder / "index.html").write_text(_as_page(sections, time.perf_counter() - start), encoding="utf-8")
    console.print(f"pictures and page: {folder / 'index.html'} ({time.perf_counter() - start:.0f} s)")
    return sections


# The three questions ------------------------------------------------------------------------------------------


def ask_dropoff(max_epochs: int) -> Section:
    """Where will this trip end? A joint density of two coordinates."""
    train, test = _split_trips()
    features, target = ["pickup_east", "pickup_north", "weekday", "hour"], ["dropoff_east", "dropoff_north"]
    section = Section(
        "Where will this trip end?",
        "p(drop-off | pick-up, weekday, hour) of New York taxi trips: a mixture of 20 normals in two dimensions with "
        "full covariance. The right answer is a map, not a point.",
        "nats per km²",
    )
    model = MDNRegressor(n_components=20, preset="plain", max_epochs=max_epochs, random_state=0).fit(
        train[features], train[target]
    )
    _compare(section, model, train[features], train[target], test[features], test[target])

    places = {
        "Times Square": _TIMES_SQUARE,
        "JFK airport": (-73.7822, 40.6448),
        "Upper East Side": (-73.9570, 40.7735),
        "Williamsburg": (-73.9575, 40.7145),
    }
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    for ax, (place, (lon, lat)) in zip(figure.subplots(1, 4, sharey=True), places.items(), strict=True):
        east, north = _to_km(lon, lat)
        pickup = pd.DataFrame([[east, north, 4, 19.0]], columns=features)
        ax.set(xlim=(-8, 20), ylim=(-15, 15), aspect="equal", title=place)
        plot_mixture(model.predict_dist(pickup), ax=ax)
        ax.scatter(*train[target].to_numpy().T, s=0.4, color=GREY, alpha=0.25, lw=0)
        ax.plot(east, north, "*", color=ORANGE, ms=13, mec="white", mew=0.8)
        ax.set(xlabel="km east of Times Square", ylabel="")
    figure.axes[0].set_ylabel("km north")
    caption = (
        "Density of the drop-off for four pick-ups (stars), Friday 19:00, with the components' 90% ellipses; "
        "grey dots are the drop-offs of all training trips."
    )
    section.figures.append(("dropoff.png", figure, caption))
    return section


def ask_duration(max_epochs: int) -> Section:
    """How long will it take? A scalar density with quantiles and intervals."""
    train, test = _split_trips()
    features = ["pickup_east", "pickup_north", "dropoff_east", "dropoff_north", "weekday", "hour", "passenger_count"]
    section = Section(
        "How long will it take?",
        "p(duration | pick-up, drop-off, weekday, hour, passengers). Distance, fare and tip are known only after the "
        "trip, so they are left out.",
        "nats per minute",
    )
    model = MDNRegressor(n_components=5, preset="plain", max_epochs=max_epochs, random_state=0)
    model.fit(train[features], train["duration_min"])
    _compare(section, model, train[features], train["duration_min"], test[features], test["duration_min"])

    ends = [*_to_km(-73.9935, 40.7506), *_to_km(-73.9570, 40.7735)]
    trip = pd.DataFrame([[*ends, 4, 17.0, 1]], columns=features)
    day = pd.concat([trip.assign(hour=hour) for hour in np.linspace(0, 24, 25)])
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    plot_mixture(model.predict_dist(trip)[0], ax=left)
    left.set(title="Penn Station to Upper East Side, 17:00", xlabel="minutes")
    plot_density(model, day, feature="hour", kind="fan", ax=middle)
    middle.set(title="the same trip through the day", xlabel="hour", ylabel="minutes")
    plot_fit(model.fit_report_, ax=right)
    right.set(title="training", ylabel="NLL, nats per minute")
    caption = "One trip's density with its 90% interval; how it changes with the hour; the loss while it was learned."
    section.figures.append(("duration.png", figure, caption))
    return section


def ask_inverse(max_epochs: int) -> Section:
    """Which t led to this x? The problem on which the mean fails."""
    X, y = make_inverse_sine(1500, random_state=1)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=1 / 3, random_state=0)
    section = Section(
        "Which t led to this x?",
        "x = t + 0.3 sin(2πt) + noise, to be inverted. Where the curve folds, three values of t lead to the same x; "
        "least squares answers with their mean, which is none of them.",
        "nats",
    )
    model = MDNRegressor(n_components=5, preset="plain", max_epochs=max_epochs, random_state=0).fit(X_train, y_train)
    _compare(section, model, X_train, y_train, X_test, y_test)
    section.figures.append(("inverse.png", draw_inverse(model, X_train, y_train), _INVERSE_CAPTION))
    return section


_INVERSE_CAPTION = (
    "Left: least squares (orange) runs between the branches. Middle: the mixture's density finds all of them. "
    "Right: p(t | x = 0.4), with its components; the orange line is the least-squares answer."
)


def draw_inverse(model: MDNRegressor, X: NDArray[np.float64], y: NDArray[np.float64]) -> Figure:
    """Least squares beside the mixture on the inverse sine."""
    least_squares = make_pipeline(SplineTransformer(n_knots=10), LinearRegression()).fit(X, y)
    grid = np.linspace(X.min(), X.max(), 300)[:, None]
    figure = Figure(figsize=(12, 3.7), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.scatter(X, y, s=5, color=INK, alpha=0.35, lw=0)
    left.plot(grid, least_squares.predict(grid), color=ORANGE, lw=2.5)
    left.set(title="least squares", xlabel="x", ylabel="t", xlim=(grid[0, 0], grid[-1, 0]))
    left.spines[["top", "right"]].set_visible(False)
    plot_density(model, X, feature=0, ax=middle)
    middle.set(title="mixture density network", xlabel="x", ylabel="t")
    left.set_ylim(middle.get_ylim())
    plot_mixture(model.predict_dist([[0.4]])[0], ax=right)
    right.axvline(least_squares.predict([[0.4]]).item(), color=ORANGE, lw=2)
    right.set(title="p(t | x = 0.4)", xlabel="t")
    return figure


# Rows and scores ----------------------------------------------------------------------------------------------


def _to_km(lon: Any, lat: Any) -> tuple[Any, Any]:
    """Kilometres east and north of Times Square."""
    return (lon - _TIMES_SQUARE[0]) * _KM_PER_DEGREE[0], (lat - _TIMES_SQUARE[1]) * _KM_PER_DEGREE[1]


def _split_trips() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two thirds of the trips to learn from, one third held out."""
    trips = load_taxi()
    for end in ("pickup", "dropoff"):
        trips[f"{end}_east"], trips[f"{end}_north"] = _to_km(trips[f"{end}_lon"], trips[f"{end}_lat"])
    trips["duration_min"] = trips["duration_s"] / 60
    train, test = train_test_split(trips, test_size=1 / 3, random_state=0)
    return train, test


def _compare(section: Section, model: MDNRegressor, X_train, y_train, X_test, y_test) -> None:
    """Score the model and three simpler ones, each as a mixture for every held-out row."""
    y = np.asarray(y_train, dtype=np.float64)
    one_normal = MDNRegressor(n_components=1, preset="plain", max_epochs=model.max_epochs, random_state=0).fit(
        X_train, y_train
    )
    predictions = {
        "unconditional density": fit_unconditional(y).expand((len(X_test),)),
        "linear-Gaussian model": predict_linear_gaussian(X_train, y, X_test),
        "heteroscedastic Gaussian network": one_normal.predict_dist(X_test),
        f"mixture density network, K = {model.n_components}": model.predict_dist(X_test),
    }
    truth = torch.tensor(np.asarray(y_test, dtype=np.float64))
    section.scores = [score(name, mixture, truth) for name, mixture in predictions.items()]


def fit_unconditional(y: NDArray[np.float64]) -> Mixture:
    """The density of y alone: scikit-learn's Gaussian mixture, with 1 to 10 components by BIC."""
    flat = StandardScaler().fit(y.reshape(len(y), -1))
    z = flat.transform(y.reshape(len(y), -1))
    fits = [GaussianMixture(k, random_state=0, reg_covar=1e-5).fit(z) for k in range(1, 11)]
    best = min(fits, key=lambda fit: fit.bic(z))
    logits, loc = torch.tensor(best.weights_).log(), torch.tensor(best.means_)
    a, b = torch.tensor(flat.mean_), torch.tensor(flat.scale_)
    if y.ndim == 1:
        scale = torch.tensor(best.covariances_)[:, 0, 0].sqrt()
        return Mixture(logits, Normal(loc[:, 0], scale)).affine(a[0], b[0])
    return Mixture(logits, MultivariateNormal(loc, torch.tensor(best.covariances_))).affine(a, b)


def predict_linear_gaussian(X_train, y: NDArray[np.float64], X_test) -> Mixture:
    """Least squares with one normal error law for all rows."""
    line = LinearRegression().fit(X_train, y)
    residual = (y - line.predict(X_train)).reshape(len(y), -1)
    covariance = torch.tensor(residual.T @ residual / (len(y) - np.shape(X_train)[1] - 1))
    loc = torch.tensor(line.predict(X_test)).unsqueeze(1)
    if y.ndim == 1:
        return Mixture(torch.zeros(1, dtype=loc.dtype), Normal(loc, covariance[0, 0].sqrt()))
    return Mixture(torch.zeros(1, dtype=loc.dtype), MultivariateNormal(loc, covariance))


def score(name: str, mixture: Mixture, y: torch.Tensor) -> Score:
    """Held-out NLL with its standard error, and coverage of the 90% interval or region."""
    losses = -mixture.log_prob(y)
    if mixture.event_shape:
        draws = mixture.sample((500,), torch.Generator().manual_seed(0))
        denser = (mixture.log_prob(draws) > -losses).double().mean(0)  # probability of points denser than y
        inside = denser <= _COVERAGE
    else:
        reached = mixture.cdf(y)
        inside = (reached >= (1 - _COVERAGE) / 2) & (reached <= (1 + _COVERAGE) / 2)
    error = losses.std() / len(losses) ** 0.5
    return Score(name, losses.mean().item(), error.item(), inside.double().mean().item())


# The page -----------------------------------------------------------------------------------------------------


def _as_rich_table(section: Section) -> Table:
    table = Table(title=f"{section.title} NLL in {section.unit}, on held-out rows", title_justify="left")
    table.add_column("model", no_wrap=True)
    for heading in ("NLL", "s.e.", "90% set holds"):
        table.add_column(heading, justify="right")
    for s in section.scores:
        table.add_row(s.model, f"{s.nll:.3f}", f"{s.standard_error:.3f}", f"{s.coverage:.1%}")
    return table


def _as_page(sections: list[Section], seconds: float) -> str:
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>Mixtura: demonstration</title><style>{STYLE}</style></head><body><main>",
        "<h1>When one number is not the answer</h1>",
        "<p>Mixtura learns the whole conditional density p(y | x). Below are three questions, each asked of rows that "
        "no model has seen. NLL is the mean negative log density (lower is better; it may be negative); a 90% set "
        f"should hold 90% of the rows. Learned and drawn in {seconds:.0f} seconds.</p>",
    ]
    for section in sections:
        parts.append(f"<section><h2>{html.escape(section.title)}</h2><p>{html.escape(section.question)}</p>")
        for _, figure, caption in section.figures:
            alt = html.escape(caption, quote=True)
            parts.append(f"<figure><img alt='{alt}' src='data:image/png;base64,{_as_base64(figure)}'>")
            parts.append(f"<figcaption>{html.escape(caption)}</figcaption></figure>")
        parts.append(_as_html_table(section) + "</section>")
    return "\n".join([*parts, "</main></body></html>"])


def _as_html_table(section: Section) -> str:
    best = min(section.scores, key=lambda s: s.nll)
    rows = [
        f"<tr{' class=best' if s is best else ''}><td>{html.escape(s.model)}</td><td>{s.nll:.3f}</td>"
        f"<td>{s.standard_error:.3f}</td><td>{s.coverage:.1%}</td></tr>"
        for s in section.scores
    ]
    head = (
        f"<tr><th scope='col'>model</th><th scope='col'>held-out NLL, {html.escape(section.unit)}</th>"
        "<th scope='col'>standard error</th><th scope='col'>coverage of the 90% set</th></tr>"
    )
    return f"<div class='scroll'><table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"


def _as_base64(figure: Figure) -> str:
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return base64.b64encode(stream.getvalue()).decode()
