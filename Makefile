# libreconnect. `make run` shows it, `make test` proves it; `make help` lists the rest.

PREFIX ?= /usr/local
HTTP ?= 127.0.0.1:8080
export HTTP UDP

# SECONDS and TARGET are taken from make's own command line only: shells have a SECONDS of their own.
fuzz_seconds = $(if $(filter command line,$(origin SECONDS)),$(SECONDS),$(or $(FUZZ_SECONDS),60))
fuzz_target = $(if $(filter command line,$(origin TARGET)),$(TARGET))

.PHONY: build run test lint format bench fuzz install clean help

build: ## the release library and the example hosts, in build/
	@scripts/install-packages build hosts
	@scripts/build

run: build ## start the answerer host and its page on HTTP=127.0.0.1:8080
	@scripts/run

test: ## every test; PARTS="swift abi" runs some of them
	@scripts/install-packages build python
	@scripts/test $(PARTS)

lint: ## check formatting, types, warnings and habits
	@scripts/lint

format: ## write the sources in their one form
	@scripts/format

bench: build ## measurements, plain text and JSON; ARGS="--quick" for a smoke run
	@scripts/bench $(ARGS)

fuzz: ## fuzz TARGET=name (default: all) for SECONDS=60 each
	@scripts/install-packages build python
	@scripts/fuzz --seconds $(fuzz_seconds) $(fuzz_target)

install: build ## the library, its header and its .pc under PREFIX=/usr/local, inside DESTDIR= if given
	@scripts/install "$(PREFIX)" "$(DESTDIR)"

clean: ## remove everything that was built
	rm -rf .build build

help:
	@sed -nE 's/^([a-z]+):[^#]*## /make \1|/p' Makefile | while IFS='|' read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done
