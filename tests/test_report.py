"""The page: it parses, stands alone, says what `evaluate` and the doctor say, and fits every screen."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import mixtura
from mixtura import MDNRegressor, MixturaError, Mixture, evaluate, write_report
from mixtura.cli import app
from mixtura.diagnosis import Diagnosis, Finding
from mixtura.report.evidence import meaning, number
from mixtura.report.words import ADVICE, in_brief

pytestmark = pytest.mark.filterwarnings("ignore:.*W-feature-(missing|far)")
ROOT = Path(__file__).parents[1]
HOSTILE = {
    "feature": "<script>alert(1)</script>",
    "other": 'a" onload="x',
    "money": "$\\frac{",
    "target": "</title><b>&y",
}
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a page holds; raises where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.cells: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in VOID:
            return
        self._open.append(tag)
        self.text.setdefault(tag, []).append("")
        if tag == "table":
            self.cells.append([])
        if tag == "tr":
            self.cells[-1].append([])
        if tag in ("th", "td"):
            self.cells[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        for tag in self._open:
            self.text[tag][-1] += data
        if {"th", "td"} & set(self._open):
            self.cells[-1][-1][-1] += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def read(path: str = "report.html") -> Page:
    return Page(Path(path).read_text(encoding="utf-8"))


def table(n: int, seed: int = 0) -> pd.DataFrame:
    """A scalar target with a hole at 0, a category and a gap."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    frame = pd.DataFrame({"miles": x, "place": rng.choice(["a", "b"], n), "idle": rng.normal(size=n)})
    frame.loc[1, "idle"] = np.nan
    frame["minutes"] = 3 * x + 0.5 * (frame["place"] == "a") + 0.4 * rng.normal(size=n)
    return frame


FEATURES = ["miles", "place", "idle"]


@pytest.fixture(scope="module")
def model() -> MDNRegressor:
    train = table(300)
    fast = MDNRegressor(2, preset="fast", hidden_layer_sizes=(16,), max_epochs=25, random_state=0)
    return fast.fit(train[FEATURES], train["minutes"])


@pytest.fixture(scope="module")
def made(model, tmp_path_factory) -> Path:
    """A page of a pooled model."""
    path, test = tmp_path_factory.mktemp("report") / "report.html", table(120, seed=1)
    write_report(model, test[FEATURES], test["minutes"], path, command="mixtura report m test.csv")
    return path


# The page ------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone(made):
    text = made.read_text(encoding="utf-8")
    page = Page(text)
    assert "http" not in text
    assert "@import" not in text
    assert not page.of("script")
    assert not page.of("link")
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert len(text) < 1_500_000


def test_the_page_can_be_read_aloud(made):
    page = read(str(made))
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("h1")) == len(page.of("main")) == len(page.of("title")) == 1
    tables = len(page.of("table"))
    assert tables >= 6
    assert len(page.of("caption")) == tables
    assert all(text.strip() for text in page.text["caption"])
    assert all(cell.get("scope") in ("row", "col") for cell in page.of("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    regions = [a for a in page.of("div") if a.get("role") == "region"]
    assert len(regions) == tables
    assert all(a["tabindex"] == "0" and a["aria-labelledby"] in ids for a in regions)
    assert {str(a["href"]).removeprefix("#") for a in page.of("a")} <= set(ids)
    pictures = page.of("svg")
    assert len(pictures) == len(page.of("figure")) == len(page.of("figcaption")) >= 8
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert all(re.search(r"\d", caption) for caption in page.text["figcaption"])
    for part in re.findall(r"url\(#([^)]*)\)|xlink:href=\"#([^\"]*)\"", made.read_text(encoding="utf-8")):
        assert "".join(part) in ids  # clips and marks are found under their new names


def test_the_style_prints_and_follows_the_theme(made):
    style = read(str(made)).text["style"][0]
    assert "@media print" in style
    assert "prefers-color-scheme: dark" in style


def test_all_numbers_of_evaluate_are_on_the_page(model, made):
    test = table(120, seed=1)
    result = evaluate(model, test[FEATURES], test["minutes"])
    shown = {row[-1]: row for grid in read(str(made)).cells for row in grid}
    for metric, (value, error, right) in zip(result.table.index, result.table.to_numpy(), strict=True):
        row = shown[metric]
        assert row[1:3] == [number(value), number(error)]
        if metric.startswith(("central_", "hdr_", "pit_")):
            assert row[3] == number(right)
    assert result.summary in read(str(made)).text["p"]


def test_findings_are_told_in_words(model, made):
    test = table(120, seed=1)
    found = model.diagnose(test[FEATURES], test["minutes"])
    rows = {row[-1]: row for grid in read(str(made)).cells for row in grid}
    for one in found.findings:
        assert rows[one.code][:3] == [one.severity, one.what, one.advice or "Nothing."]


def test_doubt_and_importance_are_on_the_page(model, made):
    test = table(120, seed=1)
    parts = model.uncertainty(test[FEATURES])
    share = 100 * (parts.epistemic.sum() / parts.total.sum()).item()
    text = " ".join(read(str(made)).text["p"])
    assert f"{share:.1f}% is doubt" in text
    importance = mixtura.permutation_importance(model, test[FEATURES], test["minutes"], n_repeats=2)
    grid = next(grid for grid in read(str(made)).cells if grid[0][0] == "feature")
    assert [row[0] for row in grid[1:]] == list(importance.index)
    assert grid[1][1] == number(importance["rise"].iloc[0])


def test_the_same_page_twice(model, made):
    test = table(120, seed=1)
    write_report(model, test[FEATURES], test["minutes"], "again.html", command="mixtura report m test.csv")
    pages = [re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "", path.read_text()) for path in (made, Path("again.html"))]
    assert pages[0] == pages[1]


def test_names_are_escaped():
    data = table(160).set_axis(list(HOSTILE.values()), axis=1)
    data[HOSTILE["other"]] = np.where(data[HOSTILE["other"]] == "a", "<i>a</i>", "b")
    X, y = data.drop(columns=HOSTILE["target"]), data[HOSTILE["target"]]
    write_report(plain(X[:100], y[:100]), X[100:], y[100:], "report.html", title="<h1>")
    page = read()
    assert not page.of("script")
    assert not page.of("b")
    assert not page.of("i")
    assert not [a for _, a in page.tags if "onload" in a]
    assert page.text["h1"] == ["<h1>"]
    assert HOSTILE["feature"] in [row[0] for grid in page.cells for row in grid]


# Kinds of models -----------------------------------------------------------------------------------------------


def plain(X, y, **settings) -> MDNRegressor:
    return MDNRegressor(1, preset="plain", family="normal", max_epochs=10, random_state=0, **settings).fit(X, y)


def test_arrays_vectors_atoms_and_calibrated_models():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(140, 2))
    targets = {
        "vector": (np.c_[X[:, 0], X[:, 1]] + 0.1 * rng.normal(size=(140, 2)), {}),
        "atoms": (np.maximum(X[:, 0], 0), {"atoms": [0.0]}),
    }
    for name, (y, settings) in targets.items():
        write_report(plain(X[:100], y[:100], **settings), X[100:], y[100:], f"{name}.html")
        page = read(f"{name}.html")
        assert any(row[-1] == "hdr_coverage_90" for grid in page.cells for row in grid)
        assert any(row[0] == "x0" for grid in page.cells for row in grid)
    assert read("vector.html").of("image")
    y = X[:, 0]
    calibrated = plain(X[:60], y[:60]).calibrate(X[60:100], y[60:100], "pit")  # whose densities are no mixtures
    write_report(calibrated, X[100:], y[100:], "report.html")
    assert ["calibration", calibrated.summary] in [row for grid in read().cells for row in grid]


def test_what_is_no_model_of_ours():
    class Standard:
        def predict_dist(self, X):
            zeros = torch.zeros(len(X), 1, dtype=torch.float64)
            return Mixture(zeros, torch.distributions.Normal(zeros, torch.ones_like(zeros)))

    X = np.random.default_rng(0).normal(size=(50, 1))
    write_report(Standard(), X, X[:, 0], "report.html")
    assert any("can't tell the two apart" in text for text in read().text["p"])


def test_few_rows_and_intervals_are_refused(model):
    test = table(19)
    with pytest.raises(MixturaError, match="E-too-few-rows"):
        write_report(model, test[FEATURES], test["minutes"], "report.html")
    censored = np.c_[test["minutes"], test["minutes"] + 1]
    with pytest.raises(MixturaError):
        write_report(model, test[FEATURES], censored, "report.html")
    assert not Path("report.html").exists()


def test_many_rows_are_sampled_and_it_is_said(monkeypatch):
    monkeypatch.setattr("mixtura.report._MOST_ROWS", 60)
    data = table(150)
    write_report(plain(data[FEATURES], data["minutes"]), data[FEATURES], data["minutes"], "report.html")
    text = " ".join(read().text["p"])
    assert "60 of 150 rows were taken at random" in text
    assert 'preset="fast"' in text  # how to learn of doubt, of which one network knows nothing


# Three sentences -----------------------------------------------------------------------------------------------


def forecast(shift=0.0, scale=1.0, n=600) -> list[str]:
    """What is said where the truth is N(x, 1) with x ~ N(0, 4), and N(x + shift, scale^2) is forecast."""
    rng = np.random.default_rng(0)
    x = 2 * rng.normal(size=(n, 1))
    y = x[:, 0] + rng.normal(size=n)
    loc = torch.tensor(x + shift)
    density = Mixture(torch.zeros_like(loc), torch.distributions.Normal(loc, torch.full_like(loc, scale)))
    return in_brief(evaluate(density, x, y), None, "y")


def test_the_truth_is_good():
    good, trusted, todo = forecast()
    assert good.startswith("The model is useful")
    assert "but not surely less than those of a straight line" in good  # the truth is one
    assert trusted.startswith("Its uncertainty can be trusted")
    assert todo.startswith("It may be used as it is")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scale": 0.5}, "too sure of itself"),
        ({"scale": 2.0}, "less sure than it could be"),
        ({"shift": -0.7}, "Its forecasts are too low"),
        ({"shift": 0.7}, "Its forecasts are too high"),
    ],
)
def test_faults_are_told(settings, said):
    assert said in forecast(**settings)[1]


def test_a_model_that_is_worse_than_none_is_not_to_be_used():
    good, _, todo = forecast(shift=9.0)
    assert good.startswith("The model is not useful")
    assert todo.startswith("Do not use it yet")


def test_each_is_one_sentence_and_few_rows_are_said():
    for said in (forecast(), forecast(shift=-0.7, scale=0.5), forecast(shift=9.0), forecast(n=30)):
        assert len(said) == 3
        assert all(re.fullmatch(r"[A-Z](?:[^.]|\.\d)*\.", sentence) for sentence in said), said
    assert "so few rows" in forecast(n=30)[1]


def test_the_doctor_s_first_advice_is_passed_on():
    x = np.random.default_rng(0).normal(size=200)
    loc = torch.tensor(x[:, None])
    density = Mixture(torch.zeros_like(loc), torch.distributions.Normal(loc, torch.ones_like(loc)))
    result = evaluate(density, None, x + np.random.default_rng(1).normal(size=200))
    warnings = tuple(Finding(code, "warning", "", "") for code in ("D-shape", "D-extrapolation"))
    todo = in_brief(result, Diagnosis(warnings, pd.DataFrame(), 200), "y")[2]
    assert ADVICE["D-extrapolation"] in todo
    assert "1 more below" in todo


def test_every_finding_has_plain_words():
    codes = re.findall(r"^## (D-[a-z-]+)$", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE)
    assert sorted(codes) == sorted(ADVICE)


def test_every_metric_has_words(model):
    test = table(60)
    scalar = evaluate(model, test[FEATURES], test["minutes"]).table.index
    words = [meaning(str(metric), "minutes") for metric in scalar]
    assert len(set(words)) > len(words) - 2  # the P-values share theirs
    assert not set(words) & set(scalar)


# The command ---------------------------------------------------------------------------------------------------


def test_the_command(model):
    model.save("m")
    table(60, seed=1).to_csv("test.csv")
    done = CliRunner().invoke(app, ["report", "m", "test.csv", "-o", "page.html"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    page = read("page.html")
    assert page.text["h1"] == ["minutes: m on test.csv"]
    command = "mixtura report m test.csv -o page.html --random-state 0"
    assert ["command", command] in [row for grid in page.cells for row in grid]
    assert not list(Path().glob(".partial*"))
    before = Path("page.html").read_text()
    table(19).to_csv("few.csv")
    done = CliRunner().invoke(app, ["report", "m", "few.csv", "-o", "page.html"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "E-too-few-rows" in done.output
    assert Path("page.html").read_text() == before
    done = CliRunner().invoke(app, ["report", "m", "test.csv", "-o", "no/page.html"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "E-file-write" in done.output


# In a browser --------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome is installed to look with")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_the_screen(made, width):
    """In a frame of this width: how wide the page is, whether a picture's text leaves it, what else was loaded."""
    page = made.read_text(encoding="utf-8")
    probe = """<script>addEventListener("load", () => {
      const root = document.documentElement, texts = [...document.querySelectorAll("svg text")];
      const wide = texts.filter(text => text.getBoundingClientRect().right > root.clientWidth);
      const loaded = performance.getEntriesByType("resource");
      parent.postMessage([root.scrollWidth, root.clientWidth, wide.length, loaded.length, texts.length], "*");
    })</script>"""
    Path("probe.html").write_text(page.replace("</body>", probe + "</body>"), encoding="utf-8")
    # Chromium opens no window below 500 pixels: a phone is a frame.
    Path("frame.html").write_text(
        f"<!doctype html><title>-</title><script>onmessage = e => document.title = e.data.join()</script>"
        f"<iframe src='probe.html' style='width:{width}px;height:900px;border:0'></iframe>"
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={Path('profile').absolute()}",
    ]
    options += [f"--window-size={max(width + 50, 500)},1000", "--virtual-time-budget=10000"]
    assert BROWSER is not None
    ask = [BROWSER, *options, "--dump-dom", Path("frame.html").absolute().as_uri()]
    seen = subprocess.run(ask, capture_output=True, text=True, timeout=120).stdout
    title = re.search(r"<title>([\d,]+)</title>", seen)
    assert title, seen[:2000]
    scroll, client, n_wide, n_requests, n_texts = map(int, title[1].split(","))
    assert scroll <= client <= width
    assert n_wide == 0
    assert n_requests == 0
    assert n_texts > 50
    shot = [BROWSER, *options, "--screenshot=shot.png", Path("frame.html").absolute().as_uri()]
    subprocess.run(shot, capture_output=True, timeout=120)
    assert Path("shot.png").stat().st_size > 10_000
