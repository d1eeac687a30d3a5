"""The command line. Exit code 0 is success, 1 bad input, 2 a call that makes no sense."""

import json
import shlex
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from .calibrated import Calibrated, Conformal, conform, network_of
from .comparison import compare as compare_forecasts
from .demo import run_demo
from .diagnosis import Diagnosis
from .errors import MixturaError, MixturaWarning
from .estimator import MDNRegressor
from .evaluation import Score
from .evaluation import evaluate as evaluate_forecast
from .loading import load
from .regions import Region
from .report import write_report
from .storage import check_free

app = typer.Typer(
    help="Mixtura learns the whole conditional density p(y | x) from a table.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_out = Console()
_err = Console(stderr=True, soft_wrap=True, highlight=False)
_CHUNK_ROWS = 8_192
_PARQUET = (".parquet", ".pq")


@contextmanager
def _one_line() -> Iterator[None]:
    """Errors and warnings that a person can act on, one line each, on standard error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MixturaWarning)
        try:
            yield
        except MixturaError as error:
            _err.print(f"error: {error}", style="red", markup=False)
            raise typer.Exit(1) from error
        finally:
            for text in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, MixturaWarning)):
                _err.print(f"warning: {text}", style="yellow", markup=False)


def read_table(path: Path, text_columns: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV (also compressed) or Parquet file as a data frame; `text_columns` keep their spelling (a code 01 stays 01).

    Raises
    ------
    MixturaError
        ``E-file-missing``, ``E-file-empty``, ``E-file-format``.
    """
    if not path.is_file():
        raise MixturaError("E-file-missing", f"{path}, which is no file", "a CSV or Parquet file", "check the path")
    try:
        if path.suffix.lower() in _PARQUET:
            table = pd.read_parquet(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
                types = dict.fromkeys(text_columns, str)
                table = pd.read_csv(path, dtype=types, index_col=False, low_memory=False)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except Exception as error:  # whatever pandas, a decompressor or pyarrow may raise on a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "save it as CSV (UTF-8, commas, a name for each column), or as Parquet (with mixtura[parquet])"
        raise MixturaError("E-file-format", f"{path}, which can't be read ({reason})", "a table", fix) from error
    if table.empty:
        raise MixturaError("E-file-empty", f"{path}, which has no rows", "a header and rows", "check the export")
    return table


def _require(table: pd.DataFrame, names: list[str], path: Path) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        known = ", ".join(map(repr, table.columns[:20])) + (", ..." if table.shape[1] > 20 else "")
        got = f"no column {', '.join(map(repr, missing))} in {path}"
        raise MixturaError("E-column-missing", got, f"one of {known}", "check spelling and separator")


@app.command()
def fit(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file with features and target.")],
    target: Annotated[list[str], typer.Option(help="Column to predict; repeat it for a joint density.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    n_components: Annotated[str, typer.Option(help="Components of the mixture; or auto.")] = "5",
    family: Annotated[str, typer.Option(help="Law of a component, such as normal, gamma; auto chooses.")] = "auto",
    atoms: Annotated[str, typer.Option(help="Values with a probability of their own, with commas; or auto.")] = "",
    preset: Annotated[str, typer.Option(help="How much work it is worth: plain, fast, balanced or best.")] = "balanced",
    max_epochs: Annotated[int | None, typer.Option(help="Most passes over the rows; else the preset says.")] = None,
    random_state: Annotated[int, typer.Option(help="Seed; the same seed gives the same model.")] = 0,
) -> None:
    """Learn the density of a column given the others, and save the model."""
    with _one_line():
        check_free(output)  # now, not after an hour of training
        _random_state(random_state)
        target = list(dict.fromkeys(target))
        data = read_table(table)
        _require(data, target + (drop or []), table)
        lacking = data[target].isna().any(axis=1)
        _check_some(lacking.to_numpy(), target)
        data = data[~lacking]
        X = data.drop(columns=target + (drop or []))
        if "Unnamed: 0" in X:
            _err.print("note: column 'Unnamed: 0' has no name; if it counts rows, --drop 'Unnamed: 0'", style="yellow")
        model = MDNRegressor(
            int(n_components) if n_components.removeprefix("-").isdecimal() else n_components,
            preset=preset,
            family=family,
            covariance_type="full" if family in ("auto", "normal", "student_t") else "diag",
            atoms=_atoms(atoms),
            max_epochs=max_epochs,
            random_state=random_state,
            verbose=True,
        )
        model.fit(X, data[target[0]] if len(target) == 1 else data[target])
        model.save(output)
    _print_info(model, output)


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help="Folder that `mixtura fit` made.")],
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file with rows that were not in the fit.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the calibrated model.")],
    method: Annotated[
        str, typer.Option(help="temperature, pit or local for densities; hpd_split, cqr or cd_split for sets.")
    ] = "temperature",
    groups: Annotated[str | None, typer.Option(help="Column of groups, each of which gets the coverage.")] = None,
) -> None:
    """Correct the densities of a model on rows that it has not seen, or make sets with a promised coverage of them."""
    with _one_line():
        check_free(output)
        fitted = _loaded(model)
        data, X, y = _labelled(network_of(fitted), table, [groups] if groups else [])
        own = None if groups is None else data[groups].astype(str)
        if isinstance(fitted, MDNRegressor):
            calibrated = fitted.calibrate(X, y, method, own)  # pyright: ignore[reportArgumentType]
        else:
            calibrated = conform(fitted, X, y, method, own)  # pyright: ignore[reportArgumentType]
        calibrated.save(output)
    _err.print(f"{len(data)} rows, method {method}: written to {output}", markup=False)


def _loaded(path: Path) -> Any:
    """A model from disk that answers on the command line."""
    model = load(path)
    if not isinstance(network_of(model), MDNRegressor):
        fix = "load it in Python, and call sample or score_samples"
        raise MixturaError("E-parameter", f"a {type(model).__name__}", "an MDNRegressor", fix)
    return model


def _features(model: MDNRegressor, path: Path, others: list[str]) -> tuple[pd.DataFrame, Any]:
    """A table, and the part of it that the model takes; `others` are columns that must be there, too."""
    columns = model.encoder_.columns_
    data = read_table(path, [column.name for column in columns if column.is_category and column.name])
    names = [column.name for column in columns if column.name is not None]
    _require(data, names + others, path)
    if not names:  # a model that was fitted on an array
        return data, data.drop(columns=[*others, *_target_names(model)], errors="ignore").to_numpy()
    if not hasattr(model, "feature_names_in_"):  # its names were numbers
        return data, data[names].set_axis(range(len(names)), axis=1)
    return data, data[names]


def _labelled(model: MDNRegressor, path: Path, others: Sequence[str] = ()) -> tuple[pd.DataFrame, Any, Any]:
    """A table, the features and the target in it; rows without a target are left out, and it is said how many."""
    targets = _target_names(model)
    data, X = _features(model, path, [*targets, *others])
    lacking = data[targets].isna().any(axis=1).to_numpy()
    _check_some(lacking, targets)
    data, X = data[~lacking], X[~lacking]
    return data, X, data[targets[0]] if len(targets) == 1 else data[targets]


def _check_some(lacking: NDArray[np.bool_], targets: list[str]) -> None:
    """Say how many rows have no target; raise where none has one."""
    if lacking.all():
        fix = "choose another column, or mend the export"
        raise MixturaError("E-target-nan", f"no row with a value of {', '.join(targets)}", "numbers", fix)
    if lacking.any():
        _err.print(f"note: {int(lacking.sum())} rows without {', '.join(targets)} are left out", style="yellow")


def _set_columns(model: Conformal, X: Any, coverage: float, groups: pd.Series | None) -> dict[str, np.ndarray]:
    """Ends of the intervals, and the size, of predicted sets; of vectors the size alone."""
    region = model.predict_set(X, coverage, groups)
    columns = {"set_size": region.size.numpy()}
    if isinstance(region, Region):
        for i in range(region.lower.shape[-1]):
            ends = {"lower": region.lower, "upper": region.upper}
            columns |= {f"set_{name}_{i + 1}": end[:, i].numpy() for name, end in ends.items()}
    return columns


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Folder that `mixtura fit` made.")],
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file with the features.")],
    quantiles: Annotated[str, typer.Option(help="Levels, with commas.")] = "0.05,0.5,0.95",
    samples: Annotated[int, typer.Option(min=0, help="Draws for each row.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="CSV or Parquet; standard output if none.")
    ] = None,
    random_state: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    coverage: Annotated[
        float | None, typer.Option(help="Adds sets with this coverage, of a model that was calibrated for them.")
    ] = None,
    groups: Annotated[str | None, typer.Option(help="Column of groups, if the calibration had one.")] = None,
) -> None:
    """Mean, standard deviation, quantiles and samples for each row of a table."""
    with _one_line():
        fitted = _loaded(model)
        levels = _parse_levels(quantiles)
        if coverage is not None and not isinstance(fitted, Conformal):
            fix = "run `mixtura calibrate --method hpd_split` first"
            raise MixturaError("E-parameter", f"--coverage {coverage} of a model without sets", "one with sets", fix)
        data, X = _features(network_of(fitted), table, [groups] if groups else [])
        random = _random_state(random_state)
        starts = range(0, len(data), _CHUNK_ROWS)
        chunks = track(starts, "predicting", console=_err, transient=True, disable=len(starts) == 1)
        parts = []
        for start in chunks:
            rows = X[start : start + _CHUNK_ROWS]
            part = _predict_chunk(fitted, rows, levels, samples, random)
            if coverage is not None:
                own = None if groups is None else data[groups][start : start + _CHUNK_ROWS].astype(str)
                part = part.assign(**_set_columns(fitted, rows, coverage, own))
            parts.append(part)
        _write_table(pd.concat(parts, ignore_index=True), output)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder that `mixtura fit` made.")],
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file with features and target, not learned from.")],
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of a table.")] = False,
    random_state: Annotated[int, typer.Option(help="Seed of draws, folds and bootstrap.")] = 0,
) -> None:
    """Whether a model is good and calibrated, on rows that it has not learned from."""
    with _one_line():
        _random_state(random_state)
        fitted = _loaded(model)
        _, X, y = _labelled(network_of(fitted), table)
        result = evaluate_forecast(fitted, X, y, random_state=random_state)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    _print_table(result.table, f"{model} on {len(result.by_row)} rows of {table}")
    _out.print(result.summary, markup=False, highlight=False)


@app.command()
def report(
    model: Annotated[Path, typer.Argument(help="Folder that `mixtura fit` made.")],
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file with features and target, not learned from.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    random_state: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
) -> None:
    """One page: whether a model is good and calibrated, what it is unsure of, and what to change."""
    with _one_line():
        _random_state(random_state)
        fitted = _loaded(model)
        _, X, y = _labelled(network_of(fitted), table)
        title = f"{', '.join(_target_names(network_of(fitted)))}: {model.name} on {table.name}"
        parts = ["mixtura", "report", model, table, "-o", output, "--random-state", random_state]
        command = shlex.join(map(str, parts))
        with _err.status("judging the model"):
            write_report(fitted, X, y, output, title=title, command=command, random_state=random_state)
    _err.print(f"written to {output}", markup=False)


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(help="Folders of two models or more; then a CSV or Parquet file.")],
    score: Annotated[str, typer.Option(help=f"What to compare: {', '.join(get_args(Score))}.")] = "nll",
    time_ordered: Annotated[bool, typer.Option("--time-ordered", help="Rows follow each other in time.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON in place of a table.")] = False,
) -> None:
    """Which of several models is better, on rows that none has learned from."""
    *folders, table = paths
    with _one_line():
        models = {str(folder): _loaded(folder) for folder in folders}
        if len(models) < 2:
            expected, fix = "two models or more, then a table", "write mixtura compare a/ b/ test.csv"
            raise MixturaError("E-parameter", " ".join(map(str, paths)), expected, fix)
        targets = {tuple(_target_names(network_of(fitted))) for fitted in models.values()}
        if len(targets) > 1:
            got = f"models of {' and of '.join(', '.join(names) for names in sorted(targets))}"
            raise MixturaError("E-parameter", got, "models of one target", "compare those of the same target")
        rows = {name: _labelled(network_of(fitted), table) for name, fitted in models.items()}
        _, _, y = next(iter(rows.values()))
        forecasts = {name: fitted.predict_dist(rows[name][1]) for name, fitted in models.items()}
        result = compare_forecasts(forecasts, None, y, score=score, time_ordered=time_ordered)  # pyright: ignore
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
        return
    _print_table(result.table, f"{result.score} on {result.n_rows} rows of {table}")
    _out.print(result.summary, markup=False, highlight=False)


def _print_table(frame: pd.DataFrame, title: str) -> None:
    """Numbers to four digits, and nothing for those that there are not."""
    table = Table(title=escape(title), title_justify="left")
    table.add_column(str(frame.index.name), overflow="fold")
    for name in frame.columns:
        table.add_column(str(name).replace("_", " "), justify="right")
    for name, values in zip(frame.index, frame.to_numpy(), strict=True):
        table.add_row(escape(str(name)), *("" if np.isnan(value) else f"{value:.4g}" for value in values))
    _out.print(table)


def _random_state(seed: int) -> np.random.RandomState:
    if not 0 <= seed < 2**32:
        raise MixturaError("E-parameter", f"--random-state {seed}", "0 <= seed < 2**32", "choose another seed")
    return np.random.RandomState(seed)


def _atoms(text: str) -> list[float] | str | None:
    """Numbers with commas, "auto", or None for an empty text."""
    if text in ("", "auto"):
        return text or None
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise MixturaError("E-parameter", f"--atoms {text}", "numbers with commas, or auto", "try --atoms 0") from error


def _target_names(model: MDNRegressor) -> list[str]:
    """The target's names, or y, or y0, y1... where it had none."""
    n_targets = model.y_scaler_.n_features_in_
    return model.target_names_ or (["y"] if n_targets == 1 else [f"y{i}" for i in range(n_targets)])


def _parse_levels(text: str) -> list[float]:
    try:
        levels = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        got = f"--quantiles {text!r}"
        raise MixturaError("E-quantile-range", got, "numbers in [0, 1], with commas", "write 0.05,0.5,0.95") from error
    return levels


def _predict_chunk(
    model: MDNRegressor | Calibrated | Conformal,
    X: pd.DataFrame | np.ndarray,
    levels: list[float],
    n_samples: int,
    random: np.random.RandomState,
) -> pd.DataFrame:
    mean, std = model.predict(X, return_std=True)
    n = len(X)
    mean, std = mean.reshape(n, -1), std.reshape(n, -1)
    quantiles = model.predict_quantiles(X, levels).reshape(n, mean.shape[1], len(levels))
    draws = (
        model.sample(X, n_samples, random).reshape(n, n_samples, -1) if n_samples else np.empty((n, 0, mean.shape[1]))
    )
    columns: dict[str, np.ndarray] = {}
    targets = _target_names(network_of(model))
    for dim, name in enumerate(targets):
        prefix = f"{name}_" if len(targets) > 1 else ""
        columns |= {f"{prefix}mean": mean[:, dim], f"{prefix}std": std[:, dim]}
        columns |= {f"{prefix}q{level}": quantiles[:, dim, i] for i, level in enumerate(levels)}
        columns |= {f"{prefix}sample_{i + 1}": draws[:, i, dim] for i in range(n_samples)}
    return pd.DataFrame(columns)


def _write_table(table: pd.DataFrame, path: Path | None) -> None:
    if path is None:
        table.to_csv(sys.stdout, index=False)
        return
    path = path.resolve()  # what a link points to is written, not the link
    if path.exists() and not path.is_file() and not path.is_dir():
        table.to_csv(path, index=False)  # a pipe or a device
        return
    staging = path.parent / f".partial.{path.name}"  # with the suffix, from which pandas takes the compression
    try:
        table.to_parquet(staging) if path.suffix.lower() in _PARQUET else table.to_csv(staging, index=False)
        staging.replace(path)
    except (OSError, ImportError) as error:
        staging.unlink(missing_ok=True)
        fix = "check that the folder exists and has room"
        raise MixturaError("E-file-write", f"{path}, which can't be written ({error})", "a path", fix) from error
    _err.print(f"{len(table)} rows written to {path}", markup=False)


@app.command()
def info(model: Annotated[Path, typer.Argument(help="Folder that `mixtura fit` made.")]) -> None:
    """What a saved model was made from, and how its training went."""
    with _one_line():
        fitted = _loaded(model)
    _print_info(network_of(fitted), model, fitted)


def _print_info(model: MDNRegressor, path: Path, calibrated: Any = None) -> None:
    report = model.fit_report_
    table = Table(title=escape(str(path)), show_header=False, title_justify="left")
    features = [column.name or f"x{i}" for i, column in enumerate(model.encoder_.columns_)]
    table.add_row("target", escape(", ".join(_target_names(model))))
    table.add_row(f"features ({len(features)})", escape(", ".join(features)))
    table.add_row("mixture", f"{model.n_components_} components, {model.family_!r}")
    if len(model.atoms_):
        table.add_row("atoms", ", ".join(f"{atom:g}" for atom in model.atoms_))
    table.add_row("rows", f"{report.n_train_rows} to learn from, {report.n_valid_rows} held out")
    kept = "the start" if report.best_epoch < 0 else f"epoch {report.best_epoch}"
    held_out = "held-out NLL" if report.n_valid_rows else "NLL on the training rows"
    table.add_row(held_out, f"{report.best_nll:.4f} nats (lower is better; it may be negative)")
    table.add_row("training", f"{report.n_epochs} epochs in {report.seconds:.1f} s, {kept} kept")
    if report.n_skipped_steps:
        table.add_row("skipped steps", str(report.n_skipped_steps))
    while isinstance(calibrated, Calibrated | Conformal):
        table.add_row("calibration", escape(calibrated.summary))
        calibrated = calibrated.model
    _out.print(table)


@app.command()
def diagnose(
    model: Annotated[Path, typer.Argument(help="Folder that `mixtura fit` made.")],
    table: Annotated[Path | None, typer.Argument(help="Rows with features and target, better new ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, for machines.")] = False,
) -> None:
    """How a saved model fares, in sentences, and what to change."""
    with _one_line():
        fitted = network_of(_loaded(model))
        if table is None:
            found = fitted.diagnose()
        else:
            _, X, y = _labelled(fitted, table)
            found = fitted.diagnose(X, y)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        _print_diagnosis(found, model)


def _print_diagnosis(found: Diagnosis, path: Path) -> None:
    looked_at = f"{found.n_rows:,} rows" if found.n_rows else "no rows, only the report of training"
    table = Table(title=escape(f"{path}: looked at {looked_at}"), title_justify="left", show_lines=True)
    for heading in ("finding", "what was found", "what to change"):
        table.add_column(heading, overflow="fold")
    colours = {"warning": "yellow", "note": "cyan", "good": "green"}
    for one in found.findings:
        kind = f"[{colours[one.severity]}]{one.severity}[/]\n{one.code}"
        table.add_row(kind, escape(one.what), escape(one.advice))
    _out.print(table)
    if len(found.regions):
        regions = Table(title="where components are in use", title_justify="left")
        for heading in found.regions.columns:
            regions.add_column(heading.replace("_", " "))
        for row in found.regions.itertuples(index=False):
            regions.add_row(*(f"{value:.4g}" if isinstance(value, float) else escape(str(value)) for value in row))
        _out.print(regions)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures and page.")] = Path("demo"),
) -> None:
    """Three densities learned from real trips and a classic curve, with pictures and a page (about a minute or two)."""
    with _one_line():
        run_demo(output, _out)


if __name__ == "__main__":
    app()
