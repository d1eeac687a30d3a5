"""The command line: fit, predict, info, demo. Exit code 0 is success, 1 bad input, 2 a call that makes no sense."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .demo import run_demo
from .errors import MixturaError, MixturaWarning
from .estimator import MDNRegressor, load
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


def read_table(path: Path) -> pd.DataFrame:
    """A CSV (also compressed) or Parquet file as a data frame.

    Raises
    ------
    MixturaError : ``E-file-missing``, ``E-file-empty``, ``E-file-format``.
    """
    if not path.is_file():
        raise MixturaError("E-file-missing", f"{path}, which is no file", "a CSV or Parquet file", "check the path")
    try:
        table = pd.read_parquet(path) if path.suffix in (".parquet", ".pq") else pd.read_csv(path)
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (ValueError, OSError, ImportError, pd.errors.ParserError) as error:
        reason = str(error).strip().splitlines()[0]
        fix = "save the table as CSV with a header, or as Parquet (which needs mixtura[parquet])"
        raise MixturaError("E-file-format", f"{path}, which can't be read ({reason})", "a table", fix) from error
    if table.empty:
        raise MixturaError("E-file-empty", f"{path}, which has no rows", "a header and rows", "check the export")
    return table


def _require(table: pd.DataFrame, names: list[str], path: Path) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        known = ", ".join(map(str, table.columns[:20])) + (", ..." if table.shape[1] > 20 else "")
        got = f"no column {', '.join(map(repr, missing))} in {path}"
        raise MixturaError("E-column-missing", got, f"one of {known}", "check the spelling")


@app.command()
def fit(
    table: Annotated[Path, typer.Argument(help="CSV or Parquet file with features and target.")],
    target: Annotated[list[str], typer.Option(help="Column to predict; repeat it for a joint density.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.")],
    drop: Annotated[list[str] | None, typer.Option(help="Column to leave out; may be repeated.")] = None,
    n_components: Annotated[int, typer.Option(help="Components of the mixture.")] = 5,
    max_epochs: Annotated[int, typer.Option(help="Most passes over the rows.")] = 300,
    random_state: Annotated[int, typer.Option(help="Seed; the same seed gives the same model.")] = 0,
) -> None:
    """Learn the density of a column given the others, and save the model."""
    with _one_line():
        check_free(output)  # now, not after an hour of training
        data = read_table(table)
        _require(data, target + (drop or []), table)
        lacking = data[target].isna().any(axis=1)
        if lacking.all():
            fix = "choose another column, or mend the export"
            raise MixturaError("E-target-nan", f"no row with a value of {', '.join(target)}", "numbers", fix)
        if lacking.any():
            _err.print(f"note: {int(lacking.sum())} rows without {', '.join(target)} are left out", style="yellow")
            data = data[~lacking]
        X = data.drop(columns=target + (drop or []))
        model = MDNRegressor(n_components, max_epochs=max_epochs, random_state=random_state, verbose=True)
        model.fit(X, data[target[0]] if len(target) == 1 else data[target])
        model.save(output)
    _print_info(model, output)


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
) -> None:
    """Mean, standard deviation, quantiles and samples for each row of a table."""
    with _one_line():
        fitted = load(model)
        levels = _parse_levels(quantiles)
        data = read_table(table)
        names = list(getattr(fitted, "feature_names_in_", []))
        _require(data, names, table)
        starts = range(0, len(data), _CHUNK_ROWS)
        chunks = track(starts, "predicting", console=_err, transient=True, disable=len(starts) == 1)
        parts = [
            _predict_chunk(fitted, data[names].iloc[start : start + _CHUNK_ROWS], levels, samples, random_state + start)
            for start in chunks
        ]
        _write_table(pd.concat(parts, ignore_index=True), output)


def _parse_levels(text: str) -> list[float]:
    try:
        levels = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        got = f"--quantiles {text!r}"
        raise MixturaError("E-quantile-range", got, "numbers in [0, 1], with commas", "write 0.05,0.5,0.95") from error
    return levels


def _predict_chunk(
    model: MDNRegressor, X: pd.DataFrame, levels: list[float], n_samples: int, seed: int
) -> pd.DataFrame:
    mean, std = model.predict(X, return_std=True)
    n = len(X)
    mean, std = mean.reshape(n, -1), std.reshape(n, -1)
    quantiles = model.predict_quantiles(X, levels).reshape(n, mean.shape[1], len(levels))
    draws = model.sample(X, n_samples, seed).reshape(n, n_samples, -1) if n_samples else np.empty((n, 0, mean.shape[1]))
    columns: dict[str, np.ndarray] = {}
    targets = model.target_names_ or ["y"]
    for dim, name in enumerate(targets):
        prefix = f"{name}_" if len(targets) > 1 else ""
        columns |= {f"{prefix}mean": mean[:, dim], f"{prefix}std": std[:, dim]}
        columns |= {f"{prefix}q{level:g}": quantiles[:, dim, i] for i, level in enumerate(levels)}
        columns |= {f"{prefix}sample_{i + 1}": draws[:, i, dim] for i in range(n_samples)}
    return pd.DataFrame(columns)


def _write_table(table: pd.DataFrame, path: Path | None) -> None:
    if path is None:
        table.to_csv(sys.stdout, index=False)
        return
    staging = path.with_name(f".{path.name}.partial")
    try:
        table.to_parquet(staging) if path.suffix in (".parquet", ".pq") else table.to_csv(staging, index=False)
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
        fitted = load(model)
    _print_info(fitted, model)


def _print_info(model: MDNRegressor, path: Path) -> None:
    report = model.fit_report_
    table = Table(title=str(path), show_header=False, title_justify="left")
    features = [column.name or f"x{i}" for i, column in enumerate(model.encoder_.columns_)]
    table.add_row("target", ", ".join(model.target_names_ or ["y"]))
    table.add_row(f"features ({len(features)})", ", ".join(features))
    table.add_row("mixture", f"{model.n_components} components, {model.network_.head.family!r}")
    table.add_row("rows", f"{report.n_train_rows} to learn from, {report.n_valid_rows} held out")
    held_out = "held-out NLL" if report.n_valid_rows else "NLL on the training rows"
    table.add_row(held_out, f"{report.best_nll:.4f} nats (lower is better; it may be negative)")
    table.add_row("training", f"{report.n_epochs} epochs in {report.seconds:.1f} s, epoch {report.best_epoch} kept")
    if report.n_skipped_steps:
        table.add_row("skipped steps", str(report.n_skipped_steps))
    _out.print(table)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures and page.")] = Path("demo"),
) -> None:
    """Three densities learned from real trips and a classic curve, with pictures and a page (about a minute or two)."""
    with _one_line():
        run_demo(output, _out)


if __name__ == "__main__":
    app()
