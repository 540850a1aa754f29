# make up     a fresh machine: environments, Label Studio, backend, trainer, a simulated plate, first model
# make test   environments if needed, linters, type check, the whole test suite
# make chaos  1000 corrections while events get lost, processes are killed and the disk fills: none is lost
#             (CHAOS=5000 submits more, SEED=2 draws another storm; as root it can mount the disk to fill)
# make lock   the exact versions and hashes that deployments install, found anew (minutes): see locks/README.md
# make reference  docs/cli.md, from the commands
# make audit  those versions against the known vulnerabilities
#
# WORKERS=2 (default) is how many processes share the tests.
# TORCH=cpu (default) or TORCH=cuda chooses the build of PyTorch; its version is in requirements-torch.txt.

PYTHON ?= python3
TORCH ?= cpu
# Only asked where the usual index would bring several GB of CUDA packages along.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
LABEL_STUDIO ?= 1.23.2
WORKERS ?= 2
UP ?= --demo
CHAOS ?= 1000
SEED ?= 1

PIP = .venv/bin/python -m pip --disable-pip-version-check
SOURCES = cytoloop ml_backend labelstudio_config trainer tests locks docker docs

.PHONY: up demo test chaos lint reference lock audit venv studio chromium clean

up: venv studio
	.venv/bin/cytoloop up $(UP)

demo: venv studio
	.venv/bin/cytoloop demo

# A file of tests stays with one worker: what it sets up is set up once.
test: venv studio chromium lint
	.venv/bin/pytest --numprocesses $(WORKERS) --dist loadfile

chaos: venv studio
	CYTOLOOP_CHAOS=$(CHAOS) CYTOLOOP_CHAOS_SEED=$(SEED) .venv/bin/pytest -q tests/chaos

lint: venv
	.venv/bin/ruff check $(SOURCES)
	.venv/bin/ruff format --check $(SOURCES)
	.venv/bin/mypy
	.venv/bin/lint-imports

reference: venv
	.venv/bin/python docs/reference.py

# PyTorch comes in two builds, so it is locked by itself; what it shares with the rest has one version.
COMPILE = .cache/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
  --no-annotate --no-emit-options
lock:
	test -x .cache/lock/bin/pip-compile || { $(PYTHON) -m venv .cache/lock && .cache/lock/bin/pip install --quiet pip-tools; }
	$(PYTHON) locks/wanted.py > .cache/lock/cytoloop.in
	sed 's/$$/+cpu/' requirements-torch.txt > .cache/lock/torch-cpu.in
	printf 'label-studio==$(LABEL_STUDIO)\nasync-timeout\n' > .cache/lock/label-studio.in  # the latter for the 3.11.2 of Debian 12
	$(COMPILE) --output-file locks/cytoloop.txt .cache/lock/cytoloop.in
	$(COMPILE) --output-file locks/label-studio.txt .cache/lock/label-studio.in
	$(COMPILE) --constraint locks/cytoloop.txt --output-file locks/torch-cuda.txt requirements-torch.txt
	$(COMPILE) --constraint locks/cytoloop.txt --extra-index-url $(TORCH_CPU_INDEX) --output-file locks/torch-cpu.txt .cache/lock/torch-cpu.in

audit: venv
	for lock in locks/*.txt; do .venv/bin/pip-audit --no-deps --disable-pip --requirement $$lock || exit 1; done

venv: .venv/.ready-$(TORCH)
studio: .venv-studio/.ready-$(LABEL_STUDIO)

.venv/.ready-$(TORCH): pyproject.toml requirements-torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "cytoloop needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.11 …"; exit 2; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "installing the product into .venv (a few minutes the first time)"
	@if [ "$(TORCH)" = cpu ] && $(PIP) install --quiet --dry-run --report - -r requirements-torch.txt | grep -q '"name": "nvidia-'; then \
	  $(PIP) install --quiet --index-url $(TORCH_CPU_INDEX) -r requirements-torch.txt; \
	else \
	  $(PIP) install --quiet -r requirements-torch.txt; \
	fi
	$(PIP) install --quiet -c requirements-torch.txt -e '.[dev]'
	rm -f .venv/.ready-*
	touch $@

.venv-studio/.ready-$(LABEL_STUDIO):
	test -x .venv-studio/bin/python || $(PYTHON) -m venv .venv-studio
	@echo "installing Label Studio $(LABEL_STUDIO) into .venv-studio (about 1 GB, a few minutes)"
	.venv-studio/bin/python -m pip --disable-pip-version-check install --quiet label-studio==$(LABEL_STUDIO)
	rm -f .venv-studio/.ready-*
	touch $@

# Browser tests skip, with a reason, where there is no Chromium and no way to get one.
chromium:
	@command -v chromium >/dev/null || { \
	  if [ "`id -u`" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing Chromium for the browser tests"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	  else echo "no Chromium and not root: browser tests will be skipped"; fi; }

clean:
	rm -rf .venv .venv-studio .cache
