# `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
BIN := .venv/bin

# What is compiled once is there for every process that follows: each starts in two thirds of the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test newest quick lint bench bench-field bench-page chaos soak clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt VERSION
	.ci/system-packages $(PYTHON)
	$(PYTHON) -m venv .venv
	rm -rf .venv/lib/python*/site-packages/torch_tasks  # an older installation there would hide the package
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[push,age,dev]'
	touch $@

demo: setup
	$(BIN)/torch-tasks demo

# Several files are tested at a time, since most tests wait; tests/conftest.py decides how many and in which order.
# A real coding agent is tested if .ci/real-agents has installed it.
BESIDE := -n auto --dist loadfile --no-loadscope-reorder

test: setup lint
	$(BIN)/pytest --ignore=tests/real_agents $(BESIDE)
	.ci/loopback-only $(BIN)/pytest tests/real_agents $(BESIDE)

# What would break with the agents' releases that are newer than the certified ones in config/releases.toml.
newest: setup
	.ci/newest $(BIN)/python

# The tests that start no process: tables, states, formats, rules; in seconds.
quick: setup
	$(BIN)/pytest tests/unit -n auto

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

bench: setup
	$(BIN)/python -m benchmarks

# Torch beside plain Celery, RedBeat, the old script and CAO, in one run; in less than ten minutes: FIELD=--quick
bench-field: setup
	$(BIN)/python -m benchmarks.field $(FIELD)

# The same, and docs/benchmark.md of what it finds.
bench-page: setup
	$(BIN)/python -m benchmarks.field --json docs/benchmark.json $(FIELD)
	$(BIN)/python docs/generate_benchmark.py

# Faults strike for so many seconds while tasks flow: make chaos SECONDS=300 SEED=7
SECONDS ?= 300

# Then the promises one by one, in full, and 10,000 broken messages into a live fleet.
chaos: setup
	PYTHONPATH=tests $(BIN)/python -m chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	PYTHONPATH=tests $(BIN)/python -m chaos.failover --way sentinel
	PYTHONPATH=tests $(BIN)/python -m chaos.failover --way service
	PYTHONPATH=tests $(BIN)/python -m chaos.partition
	PYTHONPATH=tests $(BIN)/python -m chaos.moving
	TORCH_TEST_LONG=1 $(BIN)/pytest tests/chaos/test_acceptance.py tests/chaos/test_broken_messages.py tests/chaos/test_upgrade.py

# Faults strike a whole stack at its own pace, while Prometheus watches; the report of it lies in soak/ then.
MINUTES ?= 30

soak: setup
	PYTHONPATH=tests .ci/loopback-only $(BIN)/python -m chaos.soak --minutes $(MINUTES) --to soak

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache benchmarks/results soak
