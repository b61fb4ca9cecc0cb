# Thin calls of ./nextclick and of the development tools.
.DEFAULT_GOAL := help
.PHONY: help demo up down status test test-fast check format bench docs lock clean-state

BIN := .tools/python/bin
DEV := bash local_stack/bootstrap.sh --dev

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo:  ## everything, from nothing to a ranked answer; EVENTS=<file> takes a shop's own events
	@./nextclick demo $(if $(EVENTS),--events "$(EVENTS)")

up:  ## start the embedded stack
	@./nextclick up

down:  ## stop it, leaving nothing behind
	@./nextclick down

status:  ## what runs, where, since when
	@./nextclick status

test:  ## every test, on real servers (free ports, folders of its own)
	@$(DEV)
	@$(BIN)/python -m pytest tests --ignore=tests/stack -n 2 --dist loadfile
	@$(BIN)/python -m pytest tests/stack -n 2 --dist loadgroup --timeout 600

test-fast:  ## tests that need no server: under a minute
	@$(DEV)
	@$(BIN)/python -m pytest tests --ignore=tests/stack -n 2 --dist loadfile

check:  ## ruff, mypy strict, import-linter
	@$(DEV)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy .
	@$(BIN)/lint-imports
	@$(BIN)/python docs/generate.py --check

format:  ## put the code into shape
	@$(DEV)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench:  ## benchmarks against the running stack
	@$(DEV)
	@$(BIN)/python -m benchmarks serve

docs:  ## write the pages that are made by programs
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -W ignore docs/generate_joins.py

lock:  ## compile requirements/*.txt anew from pyproject.toml (newest versions that fit)
	@bash requirements/compile.sh

clean-state:  ## stop the stack and delete its state
	@./nextclick down
	@rm -rf .nextclick
