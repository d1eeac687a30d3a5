# Everything runs in .venv, made here from nothing but python3 (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := bin/python -m pip --disable-pip-version-check -q install
PIP := .venv/$(PIP_INSTALL) -c constraints.txt
# Small networks are slower on many threads, and two test processes share the machine.
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: help demo test test-robotics test-statistical lint format bench bench-queries bench-speed bench-canonical bench-joint bench-inverse bench-accuracy bench-conformal example-finance example-inverse-kinematics example-precipitation fuzz figures docs clean

help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/test: .venv/core
	$(PIP) -e '.[test]'
	@touch $@

.venv/robotics: .venv/test
	$(PIP) -e '.[test,robotics]'
	@touch $@

.venv/lint: .venv/test
	$(PIP) -e '.[lint]'
	@touch $@

.venv/docs: .venv/core
	$(PIP) -e '.[docs]'
	@touch $@

# Peers, with pins of their own, never come near .venv.
.venv-peers/peers: pyproject.toml constraints.txt benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/$(PIP_INSTALL) -c constraints.txt -e .
	.venv-peers/$(PIP_INSTALL) --no-deps -r benchmarks/requirements-peers.txt
	@touch $@

.venv-finance/peers: pyproject.toml constraints.txt examples/finance/requirements.txt
	$(PYTHON) -m venv .venv-finance
	.venv-finance/$(PIP_INSTALL) -c constraints.txt -e .
	.venv-finance/$(PIP_INSTALL) --no-deps -r examples/finance/requirements.txt
	@touch $@

demo: .venv/core  ## Learn p(y | x) from real taxi trips; pictures and a page in demo/
	$(BIN)/mixtura demo --output demo

test: .venv/test  ## All tests but the slow statistical ones
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist loadfile

test-robotics: .venv/robotics  ## What needs the extra of robotics (a gigabyte)
	$(ONE_THREAD) $(BIN)/python -m pytest -q tests/test_examples_inverse_kinematics.py

test-statistical: .venv/test  ## The slow statistical tests
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 -m statistical

lint: .venv/lint  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: .venv/lint  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/test  ## Precision of every answer against mpmath (about three minutes)
	$(BIN)/python benchmarks/precision.py
	$(BIN)/python benchmarks/families.py

bench-queries: .venv/test  ## Speed and memory of the answers beside peers (about ten minutes)
	$(BIN)/python benchmarks/queries.py

bench-speed: .venv/test  ## Time of a training step beside what people write by hand (about one minute)
	$(BIN)/python benchmarks/training.py

bench-canonical: .venv/test  ## Excess NLL over a known truth beside a naive MDN, and the universal approximation (about forty minutes)
	$(ONE_THREAD) $(BIN)/python benchmarks/canonical.py
	$(ONE_THREAD) $(BIN)/python benchmarks/universal.py

bench-joint: .venv/test  ## A joint density beside the product of margins (about ten minutes; SARCOS=PATH adds the robot's arm)
	$(ONE_THREAD) $(BIN)/python benchmarks/joint.py $(if $(SARCOS),--sarcos $(SARCOS))

bench-inverse: .venv/test  ## Posteriors learned from simulations beside published figures; needs ../shared/data (about an hour)
	$(ONE_THREAD) $(BIN)/python benchmarks/inverse.py

bench-accuracy: .venv-peers/peers  ## NLL, CRPS, coverage and seconds beside peers; resumable (about a day)
	.venv-peers/bin/python benchmarks/accuracy.py --tables uci mixed --results accuracy.jsonl --table accuracy.md

bench-conformal: .venv-peers/peers  ## Calibration before and after, coverage and sizes of sets beside peers (about ten minutes)
	$(ONE_THREAD) .venv-peers/bin/python benchmarks/conformal.py

example-precipitation: .venv/test  ## Rain or no rain, and how much, beside peers; SET=innsbruck, innsbruck_18h or australia needs ../shared/data
	$(ONE_THREAD) $(BIN)/python -m examples.precipitation $(or $(SET),seattle)

example-finance: $(if $(PEERS),.venv-finance/peers,.venv/core)  ## Densities of daily stock returns; PEERS=1 adds GARCH and others; needs ../shared/data (ten minutes)
	$(ONE_THREAD) $(if $(PEERS),.venv-finance,.venv)/bin/python -m examples.finance $(if $(PEERS),--peers)

example-inverse-kinematics: .venv/robotics  ## All joint angles that put a hand there: ARM=panda or ur5 (half an hour), else Bishop's arm of two joints (ten minutes)
	$(ONE_THREAD) $(BIN)/python -m examples.inverse_kinematics$(if $(ARM), $(ARM),.two_joint)

fuzz: .venv/test  ## Random tables, targets and parameters: each ends in a sound model or a coded error (about ten minutes)
	$(ONE_THREAD) $(BIN)/python benchmarks/fuzz.py

figures: .venv/core  ## The figures of docs/theory.md and docs/plots.md, and the numbers they quote (about five minutes)
	$(ONE_THREAD) $(BIN)/python docs/figures.py
	cd docs/images && sed -n '/^```python/,/^```$$/{/^```/d;p;}' ../plots.md | $(ONE_THREAD) MPLBACKEND=Agg ../../$(BIN)/python -

docs: .venv/docs  ## The documentation as a site in site/; warnings are errors
	$(BIN)/mkdocs build --strict

clean:  ## Remove what was made here
	rm -rf .venv .venv-peers .venv-finance demo site .pytest_cache .ruff_cache dist
