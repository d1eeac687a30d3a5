"""Saved models: bit for bit the same, whole or not at all, and a clear error for whatever else is in the folder."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

import mixtura
from mixtura import MDNRegressor, MixturaError
from mixtura.storage import _digest


def make_table(n: int = 120) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "size": rng.uniform(0, 1, n),
            "city": rng.choice(["Ulm", "Bonn", "Kïel 😀"], n),
            "new": rng.random(n) < 0.5,
        }
    )
    table.loc[::7, "size"] = np.nan
    table.loc[::11, "city"] = None
    return table, table["size"].fillna(0.3).to_numpy() + rng.normal(size=n)


def quick(**parameters) -> MDNRegressor:
    return MDNRegressor(**{"preset": "plain", "n_components": 3, "max_epochs": 3, "random_state": 0, **parameters})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    table, y = make_table()
    quick().fit(table, pd.Series(y, name="price")).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("shape", ["table", "array", "joint", "column", "categories only", "spherical"])
def test_a_loaded_model_predicts_bit_for_bit_the_same(shape, tmp_path):
    table, y = make_table()
    X = table
    options = {"covariance_type": "spherical"} if shape == "spherical" else {}
    if shape == "array":
        X = np.random.default_rng(1).normal(size=(120, 4)) * 1e5
    elif shape in ("joint", "spherical"):
        y = np.stack([y, 1e6 * y**2], 1)
    elif shape == "column":
        y = y[:, None]
    elif shape == "categories only":
        X = table[["city"]]
    model = quick(**options).fit(X, y)
    model.save(tmp_path / "model")
    again = mixtura.load(tmp_path / "model")
    assert np.array_equal(again.predict(X), model.predict(X))
    assert np.array_equal(again.predict_quantiles(X, [0.01, 0.5]), model.predict_quantiles(X, [0.01, 0.5]))
    assert np.array_equal(again.score_samples(X, y), model.score_samples(X, y))
    assert np.array_equal(again.sample(X, 2, 0), model.sample(X, 2, 0))
    assert again.get_params() == model.get_params()
    assert again.fit_report_ == model.fit_report_
    assert again.n_features_in_ == model.n_features_in_
    if isinstance(X, pd.DataFrame):
        assert list(again.feature_names_in_) == list(model.feature_names_in_)
    again.save(tmp_path / "copy")
    assert np.array_equal(mixtura.load(tmp_path / "copy").predict(X), model.predict(X))


def test_it_loads_in_another_process(saved):
    table, _ = make_table()
    table.to_csv("rows.csv", index=False)
    code = (
        "import mixtura, pandas; print(repr(mixtura.load('model').predict(pandas.read_csv('rows.csv'))[:3].tolist()))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == mixtura.load(saved).predict(pd.read_csv("rows.csv"))[:3].tolist()


def test_saving_replaces_a_model_and_nothing_else(saved):
    table, y = make_table()
    quick(n_components=2).fit(table, y).save(saved)
    assert mixtura.load(saved).n_components == 2
    assert sorted(path.name for path in saved.parent.iterdir()) == ["model"]
    precious = saved.parent / "thesis"
    precious.mkdir()
    (precious / "chapter1.tex").write_text("years of work")
    for target in (precious, precious / "chapter1.tex"):
        with pytest.raises(MixturaError, match=r"\[E-save-target\]"):
            quick().fit(table, y).save(target)
    assert (precious / "chapter1.tex").read_text() == "years of work"


def test_a_folder_that_holds_more_than_a_model_is_left_alone(saved):
    model = mixtura.load(saved)
    (saved / "out.csv").write_text("predictions that somebody keeps beside the model")
    foreign = saved.parent / "project"
    foreign.mkdir()
    (foreign / "model.json").write_text('{"name": "of another tool"}')
    for folder in (saved, foreign):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(MixturaError, match=r"\[E-save-target\]"):
            model.save(folder)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    for impossible in ("a" * 300, "a\0b", "."):
        with pytest.raises(MixturaError, match=r"\[E-save-(target|write)\]"):
            model.save(impossible)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(saved, tmp_path):
    model = mixtura.load(saved)
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(MixturaError, match=r"\[E-save-write\]"):
        model.save(tmp_path / "locked" / "model")


def test_a_failed_write_leaves_the_old_model_whole(saved, monkeypatch):
    model = mixtura.load(saved)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", no_room)
    with pytest.raises(MixturaError, match=r"\[E-save-write\].*No space left"):
        model.save(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_a_model_that_is_not_fitted_is_not_saved(tmp_path):
    with pytest.raises(MixturaError, match=r"\[E-not-fitted\]"):
        quick().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# Damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.json", "tensors.safetensors"])
def test_every_truncation_and_every_flipped_bit_is_noticed(saved, name):
    whole = (saved / name).read_bytes()
    rng = np.random.default_rng(0)
    cuts = [whole[:n] for n in {0, 1, 7, 8, 9, *rng.integers(0, len(whole), 20).tolist()}]
    flips = []
    for place in rng.integers(0, len(whole), 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        flips.append(bytes(damaged))
    for data in [*cuts, *flips, whole + b"\0"]:
        (saved / name).write_bytes(data)
        if name == "model.json" and _same_json(data, whole):
            continue  # white space changed
        with pytest.raises(MixturaError) as caught:
            mixtura.load(saved)
        assert caught.value.code in ("E-load-corrupt", "E-load-version")


def _same_json(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


HOSTILE = {
    "not an object": lambda m: [1, 2],
    "a giant layer": lambda m: m["parameters"].update(hidden_layer_sizes=[10**9, 10**9]),
    "a layer that is text": lambda m: m["parameters"].update(hidden_layer_sizes="os.system"),
    "many components": lambda m: m["parameters"].update(n_components=10**12),
    "an unknown parameter": lambda m: m["parameters"].update(__reduce__=["os.system", "true"]),
    "a wrong family": lambda m: m["parameters"].update(family="builtins.eval"),
    "another family than announced": lambda m: m["parameters"].update(family="laplace"),
    "no parameters": lambda m: m.pop("parameters"),
    "parameters that are a list": lambda m: m.update(parameters=[]),
    "no columns": lambda m: m.update(columns=[]),
    "columns that are text": lambda m: m.update(columns="abc"),
    "columns without names": lambda m: m.update(columns=[{}] * 3),
    "levels that are a number": lambda m: m["columns"][1].update(levels=7),
    "no levels": lambda m: m["columns"][1].update(levels=[]),
    "a shape that is text": lambda m: m.update(y_shape="wide"),
    "a giant shape": lambda m: m.update(y_shape=[10**9]),
    "a negative shape": lambda m: m.update(y_shape=[-3]),
    "a report with other fields": lambda m: m["report"].update(evil=1),
    "no report": lambda m: m.update(report=None),
    "levels that are one text": lambda m: m["columns"][1].update(levels="ab"),
    "a name that is a list": lambda m: m["columns"][0].update(name=["size"]),
    "targets that are a number": lambda m: m.update(target_names=5),
    "an epoch that was not run": lambda m: m["report"].update(best_epoch=10**6),
    "many layers": lambda m: m["parameters"].update(hidden_layer_sizes=[8] * 20_000),
    "a format that is text": lambda m: m.update(format_version="99"),
    "a format of the future": lambda m: m.update(format_version=99),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_with_a_right_checksum_ends_in_a_coded_error(saved, name):
    manifest = json.loads((saved / "model.json").read_text())
    del manifest["sha256"]
    replaced = HOSTILE[name](manifest)
    content = replaced if isinstance(replaced, list) else manifest
    if isinstance(content, dict):
        content["sha256"] = _digest(content, (saved / "tensors.safetensors").read_bytes())
    (saved / "model.json").write_text(json.dumps(content))
    with pytest.raises(MixturaError) as caught:
        mixtura.load(saved)
    assert caught.value.code == ("E-load-version" if name == "a format of the future" else "E-load-corrupt")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN, "a"', "null", "", "\xff\xfe"])
def test_text_that_is_no_manifest_ends_in_a_coded_error(saved, text):
    (saved / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(MixturaError, match=r"\[E-load-corrupt\]"):
        mixtura.load(saved)


@pytest.mark.parametrize("what", ["missing", "wrong shape", "wrong type", "extra", "NaN", "negative scale"])
def test_tensors_that_do_not_fit_end_in_a_coded_error(saved, what):
    tensors = load_file(saved / "tensors.safetensors")
    name = "network.0.head.linear.weight"
    if what == "missing":
        del tensors[name]
    elif what == "wrong shape":
        tensors[name] = tensors[name][:, :-1].contiguous()
    elif what == "wrong type":
        tensors["encoder.indicated"] = tensors["encoder.indicated"] + 100
    elif what == "NaN":
        tensors[name][0, 0] = float("nan")
    elif what == "negative scale":
        tensors["y_scaler.scale"] *= -1
    else:
        tensors["network.0.surprise"] = tensors[name].clone()
    save_file(tensors, saved / "tensors.safetensors")
    manifest = json.loads((saved / "model.json").read_text())
    del manifest["sha256"]
    manifest["sha256"] = _digest(manifest, (saved / "tensors.safetensors").read_bytes())
    (saved / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(MixturaError, match=r"\[E-load-corrupt\]"):
        mixtura.load(saved)


def test_a_folder_without_a_model_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(MixturaError, match=r"\[E-load-missing\]"):
            mixtura.load(path)
