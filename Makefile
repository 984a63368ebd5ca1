# The targets set up what they need; install.sh --help says how.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help demo setup setup-dev test check test-slow clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: setup ## speak a sentence to hello.wav, and the speaker if there is one
	@rm -f hello.wav
	@.venv/bin/crier render "Hello. I am Crier, and I read announcements aloud." --out hello.wav --play || \
	    { status=$$?; [[ $$status == 74 && -s hello.wav ]] || exit $$status; echo "crier: no sound card here"; }
	@echo "crier: hello.wav is written"

setup:
	@./install.sh --local

setup-dev:
	@./install.sh --local --dev

test: setup-dev ## everything that is not slow
	@echo "crier: tests, all but the slow ones"
	@.venv/bin/python -m pytest -m "not slow" -n 3 --dist loadfile --durations=10

check: setup-dev ## lint, types and the quick tests
	@echo "crier: ruff"
	@.venv/bin/python -m ruff check --quiet
	@.venv/bin/python -m ruff format --check --quiet
	@echo "crier: mypy"
	@.venv/bin/python -m mypy --no-error-summary
	@echo "crier: quick tests (those that load no model)"
	@.venv/bin/python -m pytest tests/unit -q -n 3 --dist loadfile -m "not slow and not broker and not audio and not engine"

test-slow: setup-dev ## true shapes, soaks, word error rates
	@.venv/bin/python -m pytest -m slow -s --timeout=3600

clean: ## remove .venv and what building and testing left (not trained voices in build/, nor the cached llama.cpp)
	rm -rf .venv build/lib build/bdist.* dist *.egg-info hello.wav .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
