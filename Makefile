# The one engine: people, the wheel's build hook and the CI all call it.
#
#   make build      system packages that are missing, .venv, BPF objects, native extension, .venv/bin/xdpgw
#   make artifacts  compile only, by the Python in $(PYTHON): no apt, no pip

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)
VENV := .venv
BIN := $(VENV)/bin
# Without bytecode: root would leave files that the user cannot remove.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E env PYTHONDONTWRITEBYTECODE=1)

# The first clang that is there and is at least 14.
CLANG ?= $(shell for c in clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14 \
	clang-20 clang-21 clang-22; do \
	v=$$($$c -dumpversion 2>/dev/null) && [ "$${v%%.*}" -ge 14 ] && echo $$c && break; done || true)
# llvm-strip of the same version, or any.
LLVM_STRIP ?= $(shell v=$$($(CLANG) -dumpversion 2>/dev/null); for s in llvm-strip-$${v%%.*} \
	/usr/lib/llvm-$${v%%.*}/bin/llvm-strip llvm-strip; do command -v $$s && break; done || true)
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)

# -mcpu=v3: compare-and-swap and 32-bit jumps. -fdebug-compilation-dir: the same bytes in every folder.
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -fdebug-compilation-dir=. \
	-Ibpf $(if $(MULTIARCH),-I/usr/include/$(MULTIARCH))

APT := ca-certificates clang llvm gcc libc6-dev linux-libc-dev libbpf-dev libelf-dev zlib1g-dev pkg-config \
	iproute2 ethtool bpftool util-linux python3 python3-venv python3-dev
# What checks the metrics; of a package whose installation would start a server.
PROMTOOL := $(if $(shell command -v promtool),,build/prometheus/usr/bin/promtool)
# What bench/ compares with.
PEERS := xdp-tools nftables iptables python3-bpfcc
# Collectors and readers that tests hold the log against, and a terminal.
TEST_APT := nfdump rsyslog tshark tmux
BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_OBJECTS := $(BPF_SOURCES:bpf/%.c=xdpgw/bpf/%.o)
NATIVE := xdpgw/_native.abi3.so
ABI := xdpgw/_abi.py
# Those of live traffic have the machine for themselves; the others share it, a file each.
PARALLEL := tests/unit tests/repo tests/fastpath tests/bpf
LIVE := $(wildcard tests/net)
TESTS ?=
PYTEST = $(SUDO) $(BIN)/python -m pytest $(if $(SUDO),-p no:cacheprovider) --durations=15

.PHONY: help build artifacts demo test check bench clean system peers root wheel format

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: system $(VENV)/installed ## all that is needed to run .venv/bin/xdpgw
	@$(MAKE) --no-print-directory artifacts PYTHON=$(BIN)/python

system: # Debian packages that are missing, and only then apt
	@missing=$$(for p in $(APT); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | \
		grep -q 'ok installed' || echo $$p; done); \
	[ -z "$$missing" ] && exit 0; \
	command -v apt-get >/dev/null || { echo "not a Debian machine: install the likes of" $$missing >&2; exit 1; }; \
	[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null || \
		{ echo "missing" $$missing"; install them as root, or install sudo" >&2; exit 1; }; \
	echo "installing" $$missing; \
	$(SUDO) apt-get update -qq && \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing \
		</dev/null >/dev/null || { echo "apt-get could not install" $$missing >&2; exit 1; }

peers: system
	@$(MAKE) --no-print-directory system APT='$(PEERS)' || echo "bench leaves out what is missing" >&2

root:
	@[ "$$(id -u)" = 0 ] || command -v sudo >/dev/null || \
		{ echo "this loads programs into the kernel: run it as root, or install sudo" >&2; exit 1; }

# In a variable, as $(PYTHON) may be the venv's own once it is there.
BASE_PYTHON := $(if $(filter $(BIN)/python,$(PYTHON)),python3,$(PYTHON))

$(VENV)/installed: pyproject.toml hatch_build.py | system
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(BASE_PYTHON) is older than Python 3.11: name another by PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BASE_PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

artifacts: $(BPF_OBJECTS) $(NATIVE) $(ABI) ## compile only: no apt, no pip

xdpgw/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*) Makefile
	@[ -n "$(CLANG)" ] || { echo "no clang 14 or newer: make build installs one" >&2; exit 1; }
	@mkdir -p xdpgw/bpf
	@[ -n "$(LLVM_STRIP)" ] || { echo "no llvm-strip: make build installs one" >&2; exit 1; }
	$(CLANG) $(BPF_CFLAGS) -c $< -o $@.new
	$(LLVM_STRIP) -g $@.new
	@mv $@.new $@ # never a half-made one

$(NATIVE): $(wildcard fastpath/*.[ch] fastpath/*/*.c) bpf/abi.h fastpath/build_native.py
	$(PYTHON) fastpath/build_native.py $@

$(ABI): $(NATIVE) bpf/abi.h fastpath/gen_abi.py
	$(PYTHON) fastpath/gen_abi.py $@

demo: build root ## real packets, judged and logged, on interfaces of its own
	$(SUDO) $(BIN)/xdpgw demo

build/prometheus/usr/bin/promtool: | system
	@mkdir -p build/prometheus
	@cd build/prometheus; get="apt-get download -qq prometheus"; \
	$$get 2>/dev/null || { $(SUDO) apt-get update -qq && $$get; }; \
	dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool; rm prometheus_*.deb

test: build root $(PROMTOOL) ## all tests; those of the kernel need root
	@$(MAKE) --no-print-directory system APT='$(TEST_APT)'
	$(if $(TESTS),$(PYTEST) $(TESTS),$(PYTEST) -n 2 --dist loadfile $(PARALLEL))
	$(if $(TESTS)$(LIVE),$(if $(TESTS),,$(PYTEST) $(LIVE)))

check: build ## ruff, mypy, clang-format, unit tests
	$(BIN)/ruff check . $(ABI)
	$(BIN)/ruff format --check . $(ABI)
	$(BIN)/mypy -p xdpgw $(if $(wildcard bench/__init__.py),-p bench)
	$(BIN)/clang-format --dry-run -Werror $(wildcard bpf/*.[ch] fastpath/*.[ch] fastpath/*/*.c bench/*.[ch])
	$(BIN)/python -m pytest -q tests/unit

format: build ## write what check wants
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(wildcard bpf/*.[ch] fastpath/*.[ch] fastpath/*/*.c bench/*.[ch])

bench: build peers root ## measure; figures on stdout
	$(SUDO) $(BIN)/python -m bench run all

wheel: build ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

clean: ## all that was built; not .venv
	rm -rf xdpgw/bpf $(NATIVE) $(ABI) build dist
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +
