"""The command line: what it writes, and one line that a person can act on for each thing that can go wrong."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import mixtura
from mixtura.cli import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def make_trips(n: int = 150, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    trips = pd.DataFrame(
        {"miles": rng.uniform(0, 10, n), "borough": rng.choice(["Bronx", "Queens"], n), "id": range(n)}
    )
    trips["minutes"] = 4 * trips["miles"] + 5 * (trips["borough"] == "Queens") + rng.normal(size=n)
    trips["tip"] = trips["minutes"] / 10 + 0.1 * rng.normal(size=n)
    return trips


@pytest.fixture
def trips() -> pd.DataFrame:
    table = make_trips()
    table.to_csv("trips.csv", index=False)
    return table


@pytest.fixture
def model(trips: pd.DataFrame) -> Path:
    done = run(
        "fit", "trips.csv", "--target", "minutes", "--drop", "id", "--drop", "tip", "-o", "m", "--max-epochs", 20
    )
    assert done.exit_code == 0, done.output
    return Path("m")


def test_fit_says_what_it_made(trips):
    done = run(
        "fit", "trips.csv", "--target", "minutes", "--drop", "id", "-o", "m", "--max-epochs", 2, "--n-components", 3
    )
    assert done.exit_code == 0
    assert "held-out NLL" in done.stdout
    assert "minutes" in done.stdout
    loaded = mixtura.load("m")
    assert loaded.n_components == 3
    assert list(loaded.feature_names_in_) == ["miles", "borough", "tip"]


def test_predict_writes_mean_quantiles_and_samples(model, trips):
    done = run("predict", model, "trips.csv", "--quantiles", "0.05,0.5,0.95", "--samples", 10, "-o", "out.csv")
    assert done.exit_code == 0, done.output
    out = pd.read_csv("out.csv")
    assert list(out.columns) == ["mean", "std", "q0.05", "q0.5", "q0.95", *(f"sample_{i}" for i in range(1, 11))]
    assert len(out) == len(trips)
    loaded = mixtura.load(model)
    X = pd.read_csv("trips.csv")[["miles", "borough"]]
    np.testing.assert_allclose(out["q0.05"], loaded.predict_quantiles(X, [0.05])[:, 0])
    np.testing.assert_allclose(out[[f"sample_{i}" for i in range(1, 11)]], loaded.sample(X, 10, 0))
    assert not list(Path().glob(".*partial"))


def test_predict_writes_to_standard_output_without_o(model, trips):
    done = run("predict", model, "trips.csv", "--quantiles", "0.5")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "mean,std,q0.5"
    assert len(done.stdout.splitlines()) == 151


def test_parquet_and_joint_targets(trips):
    trips.to_parquet("trips.parquet")
    fit = run(
        "fit", "trips.parquet", "--target", "minutes", "--target", "tip", "--drop", "id", "-o", "m", "--max-epochs", 2
    )
    assert fit.exit_code == 0, fit.output
    done = run("predict", "m", "trips.parquet", "--quantiles", "0.5", "--samples", 1, "-o", "out.parquet")
    assert done.exit_code == 0, done.output
    assert list(pd.read_parquet("out.parquet").columns) == [
        f"{target}_{what}" for target in ("minutes", "tip") for what in ("mean", "std", "q0.5", "sample_1")
    ]


def test_rows_beyond_one_chunk_are_all_predicted(model, monkeypatch, trips):
    whole = run("predict", model, "trips.csv").stdout
    monkeypatch.setattr("mixtura.cli._CHUNK_ROWS", 40)
    in_chunks = run("predict", model, "trips.csv").stdout
    assert in_chunks == whole


def test_info(model):
    done = run("info", model)
    assert done.exit_code == 0
    assert all(word in done.stdout for word in ("miles, borough", "5 components", "held-out NLL", "epochs"))


def test_rows_without_a_target_are_left_out_and_told(trips):
    trips.assign(minutes=trips["minutes"].mask(trips.index < 10)).to_csv("gaps.csv", index=False)
    done = run("fit", "gaps.csv", "--target", "minutes", "-o", "m", "--max-epochs", 1)
    assert done.exit_code == 0
    assert "10 rows without minutes are left out" in done.stderr


def test_codes_keep_their_zeros_and_names_their_brackets():
    table = make_trips()
    table["zone [usd]"] = [f"{i % 10:02d}" if i else "x" for i in range(len(table))]
    table.to_csv("a.csv", index=False)
    done = run("fit", "a.csv", "--target", "minutes", "--target", "minutes", "-o", "m", "--max-epochs", 1)
    assert done.exit_code == 0, done.output
    assert "zone [usd]" in done.stdout
    table.tail(20).to_csv("new.csv", index=False)  # without the x, these would be read as numbers
    done = run("predict", "m", "new.csv", "-o", "out.csv.gz", "--quantiles", "0.1234567,0.1234568")
    assert "unseen" not in done.stderr
    assert {"q0.1234567", "q0.1234568"} <= set(pd.read_csv("out.csv.gz").columns)


def test_models_fitted_on_arrays_are_served_by_position():
    X = np.random.default_rng(0).normal(size=(60, 2))
    mixtura.MDNRegressor(preset="plain", n_components=1, max_epochs=1).fit(X, X).save("m")
    pd.DataFrame(X).to_csv("x.csv", index=False)
    done = run("predict", "m", "x.csv", "-o", "out.csv", "--quantiles", "0.5")
    assert done.exit_code == 0, done.output
    assert list(pd.read_csv("out.csv").columns) == ["y0_mean", "y0_std", "y0_q0.5", "y1_mean", "y1_std", "y1_q0.5"]


def test_whole_categories_have_one_spelling_and_numbered_columns_their_names():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({0: rng.normal(size=60), 1: pd.Series([1, 2, None] * 20).astype("category")})
    mixtura.MDNRegressor(preset="plain", n_components=1, max_epochs=1, random_state=0).fit(X, X[0]).save("m")
    X[[1, 0]].to_csv("x.csv", index=False)  # pandas writes 1.0 and 2.0, and the columns are in another order
    done = run("predict", "m", "x.csv", "-o", "out.csv")
    assert done.exit_code == 0, done.output
    assert "unseen" not in done.stderr
    np.testing.assert_allclose(pd.read_csv("out.csv")["mean"], mixtura.load("m").predict(X))


def test_output_follows_links(model, trips):
    Path("real.csv").write_text("old")
    Path("link.csv").symlink_to("real.csv")
    assert run("predict", model, "trips.csv", "-o", "link.csv").exit_code == 0
    assert Path("link.csv").is_symlink()
    assert len(pd.read_csv("real.csv")) == 150


def test_unseen_categories_are_told_in_one_line(model, trips):
    trips.assign(borough="Hoboken").to_csv("new.csv", index=False)
    done = run("predict", model, "new.csv", "-o", "out.csv")
    assert done.exit_code == 0
    assert "W-category-unseen" in done.stderr
    assert "'Hoboken' in column 'borough' (150 rows)" in done.stderr
    assert len(pd.read_csv("out.csv")) == 150


def write(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


FIT = ("--target", "y", "-o", "m", "--max-epochs", 1)
ROWS = "\n".join(f"{i},{i % 7}" for i in range(30))


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("E-file-missing", lambda: ("fit", "nowhere.csv", *FIT)),
        ("E-file-missing", lambda: ("predict", "m", "nowhere.csv")),
        ("E-file-missing", lambda: ("fit", ".", *FIT)),
        ("E-file-empty", lambda: ("fit", write("a.csv", ""), *FIT)),
        ("E-file-empty", lambda: ("fit", write("a.csv", "x,y\n"), *FIT)),
        ("E-file-format", lambda: ("fit", write("a.csv", 'x,y\n1,2\n1,2,3,4\n"'), *FIT)),
        ("E-file-format", lambda: ("fit", write("a.parquet", "no parquet"), *FIT)),
        ("E-file-format", lambda: ("fit", write("a.csv", "x,y\n1,2,3\n4,5,6\n"), *FIT)),
        ("E-file-format", lambda: ("fit", write("a.zip", "no zip"), *FIT)),
        ("E-file-format", lambda: ("fit", write("a.csv.xz", "no xz"), *FIT)),
        ("E-file-format", lambda: ("fit", write("a.csv.gz", "no gz"), *FIT)),
        ("E-parameter", lambda: ("fit", "trips.csv", *FIT, "--random-state", 2**40)),
        ("E-parameter", lambda: ("predict", "m", "trips.csv", "--random-state", -1)),
        ("E-column-missing", lambda: ("fit", write("a.csv", f"x,z\n{ROWS}"), *FIT)),
        ("E-column-missing", lambda: ("fit", write("a.csv", f"x,y\n{ROWS}"), *FIT, "--drop", "q")),
        ("E-column-missing", lambda: ("predict", "m", write("a.csv", "miles\n1"))),
        ("E-target-text", lambda: ("fit", write("a.csv", f"x,y\n{ROWS}\n1,much"), *FIT)),
        ("E-target-nan", lambda: ("fit", write("a.csv", "x,y\n1,\n2,\n"), *FIT)),
        ("E-feature-empty", lambda: ("fit", write("a.csv", "x,y\n,1\n,2\n,3"), *FIT)),
        ("E-features", lambda: ("fit", write("a.csv", "y\n1\n2\n3"), *FIT)),
        ("E-too-few-rows", lambda: ("fit", write("a.csv", "x,y\n1,2"), *FIT)),
        ("E-target-constant", lambda: ("fit", write("a.csv", "x,y\n1,2\n2,2\n3,2"), *FIT)),
        ("E-feature-date", lambda: ("fit", write("a.csv", "x,y\n2026-01-01,2\n2026-01-02,3\n"), *FIT)),
        ("E-parameter", lambda: ("fit", write("a.csv", f"x,y\n{ROWS}"), *FIT, "--n-components", 0)),
        ("E-load-missing", lambda: ("predict", ".", "trips.csv")),
        ("E-load-missing", lambda: ("info", "nowhere")),
        ("E-quantile-range", lambda: ("predict", "m", "trips.csv", "--quantiles", "5,95")),
        ("E-quantile-range", lambda: ("predict", "m", "trips.csv", "--quantiles", "low")),
        ("E-file-write", lambda: ("predict", "m", "trips.csv", "-o", "no/such/folder.csv")),
        ("E-save-target", lambda: ("fit", "trips.csv", "--target", "tip", "-o", "trips.csv", "--max-epochs", 1)),
        ("E-save-target", lambda: ("fit", "trips.csv", "--target", "tip", "-o", "trips.csv/m", "--max-epochs", 1)),
        ("E-feature-type", lambda: ("predict", "m", write("a.csv", "miles,borough\nfar,Bronx"))),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(code, arguments, model):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    done = run(*arguments())
    lines = done.stderr.strip().splitlines()
    assert done.exit_code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"error: [{code}] got ")
    assert "Fix: " in lines[0]
    assert done.stdout == ""
    assert all(path.read_bytes() == content for path, content in before.items())  # nothing is lost


@pytest.mark.parametrize(
    "arguments", [("fit", "trips.csv"), ("predict",), ("fly",), ("predict", "m", "t", "--samples", -1)]
)
def test_a_call_that_makes_no_sense_exits_with_2(arguments):
    assert run(*arguments).exit_code == 2


def test_the_demo_makes_its_page(monkeypatch):
    monkeypatch.setattr("mixtura.demo.load_taxi", lambda: mixtura.datasets.load_taxi().sample(600, random_state=0))
    monkeypatch.setattr("mixtura.cli.run_demo", lambda folder, console: _small_demo(folder, console))
    done = run("demo", "-o", "page")
    assert done.exit_code == 0, done.output
    page = Path("page/index.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page  # self-contained
    for name in ("dropoff", "duration", "inverse"):
        assert (Path("page") / f"{name}.png").stat().st_size > 10_000
    assert "heteroscedastic Gaussian network" in done.stdout


def _small_demo(folder, console):
    from mixtura.demo import run_demo  # noqa: PLC0415

    return run_demo(folder, console, max_epochs=3)
