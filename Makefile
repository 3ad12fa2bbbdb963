# Two commands on a fresh machine: make demo, make test. After either, .venv/bin/moodal works.

# torch comes first and alone, so that one can say where from, for example the small build for CPUs:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
# the first that runs and is new enough: a name alone proves nothing (pyenv has shims for absent versions)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench quality docs

demo: .venv/.base
	$(BIN)/moodal demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The field's reference package runs beside ours where its runner lies in PEER: in an environment and on a file of its own.
PEER ?= ../shared/bench
HAS_PEER := $(wildcard $(PEER)/peer.py)
BESIDE := BENCH_PEER=.venv/peer/bin/python BENCH_PEER_RUN=$(PEER)/peer.py

bench: .venv/.dev $(if $(HAS_PEER),.venv/peer/.done build/sims.pkl)
	$(if $(HAS_PEER),$(BESIDE) BENCH_PICKLE=build/sims.pkl) \
		$(BIN)/python benchmarks/speed.py

# Accuracy beside the reference package, five seeds each. Hours: it is the reference that takes them, and what it gave is
# kept in build/quality. MulT is compared on shorter sequences, on which the reference needs minutes and not days.
quality: .venv/.dev .venv/peer/.done build/sims.pkl build/aligned.pkl
	$(BESIDE) BENCH_PICKLE=build/sims.pkl $(BIN)/python benchmarks/quality.py --out build/quality \
		--models lmf,ef_lstm,mfn,self_mm,graph_mfn,tfn,misa
	$(BESIDE) BENCH_PICKLE=build/aligned.pkl $(BIN)/python benchmarks/quality.py --out build/quality-aligned --models mult

.venv/peer/.done: $(PEER)/requirements.txt | .venv/.base
	$(PYTHON) -m venv .venv/peer
	.venv/peer/bin/pip install --quiet -r $<
	touch $@

build/sims.pkl: | .venv/.base
	mkdir -p build
	$(BIN)/python $(PEER)/make_sims_like.py --variant sims --out $@

build/aligned.pkl: | .venv/.base
	mkdir -p build
	$(BIN)/python $(PEER)/make_sims_like.py --variant mosei-aligned --n 1368 456 457 --out $@

docs: .venv/.dev
	$(BIN)/python docs/generate.py
	$(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

# Each step leaves a stamp when it has ended well, so an interrupted installation is taken up again.
.venv/.torch:
	@test -n "$(PYTHON)" || { echo "moodal needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@echo "installing torch and the other packages; this takes minutes, once"
	$(INSTALL) $(TORCH)
	@touch $@

.venv/.base: .venv/.torch pyproject.toml constraints.txt
	$(INSTALL) -c constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.base
	$(INSTALL) -c constraints.txt -e '.[dev,text,shots,annotate,ray,docs]'
	@for model in face voice; do $(BIN)/moodal doctor --install $$model > /dev/null \
	  || echo "tests that need the $$model models will be skipped" >&2; done
	@touch $@
