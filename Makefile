# `make book`, `make test` and `make lab` set up .venv on first use. Everything else is done by `python -m aimfair`.

PROFILE ?= demo
DATA    ?=
DEVICE  ?=
PYTHON  ?= python3
TORCH_INDEX ?=

VENV    := .venv
READY   := $(VENV)/.ready
AIMFAIR := $(VENV)/bin/python -m aimfair

.PHONY: help book test lab clean

help:
	@echo 'make book     set up, run the demo study from nothing, build the book'
	@echo 'make test     set up, run all tests'
	@echo 'make lab      set up, open JupyterLab on the notebooks'
	@echo 'make clean    delete the built pages (.venv and data/ stay)'
	@echo
	@echo 'make book PROFILE=smoke                                  everything in small, to see that it works'
	@echo 'make book PROFILE=celeba-smiling-male DATA=path/to/celeba   real faces from your disk'
	@echo 'make book DEVICE=cpu                                     keep to the processor although there is a GPU'
	@echo 'make book TORCH_INDEX=URL                                take PyTorch from this index: its CPU build is small'
	@echo 'make book PYTHON=python3.12                              set up with another Python (3.11 or newer)'
	@echo
	@echo 'The set-up takes a few minutes and about 7 GB (2.5 GB with a CPU build of PyTorch), once. .venv/bin/aimfair --help shows more.'

book: $(READY)
	@echo 'Running the chapters of profile $(PROFILE), then building the book. On two cores the demo takes about half'
	@echo 'an hour, real faces up to an hour and a half. Ctrl-C is safe: the same command goes on from what is finished.'
	@$(AIMFAIR) book --profile $(PROFILE) $(if $(DEVICE),--device $(DEVICE)) $(if $(DATA),--data '$(DATA)')

test: $(READY)
	@echo 'Running all tests: library, notebooks, book. On two cores this takes about a quarter of an hour.'
	@$(AIMFAIR) test

lab: $(READY)
	@echo 'Opening JupyterLab. Stop it with Ctrl-C.'
	@$(AIMFAIR) lab

clean:
	rm -rf book/_build

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'aimfair needs Python 3.11 or newer; this is' "$$($(PYTHON) --version 2>&1)."; \
		  echo 'Install one and name it: make PYTHON=python3.12 ...'; exit 1; }
	@test -x $(VENV)/bin/pip || $(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo 'Python cannot create environments here. On Debian and Ubuntu: sudo apt-get install python3-venv'; exit 1; }
	@echo 'Setting up $(VENV): a few minutes, about 7 GB (2.5 GB with a CPU build of PyTorch).'
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@$(if $(TORCH_INDEX),$(VENV)/bin/pip install --disable-pip-version-check -c constraints.txt \
		--index-url '$(TORCH_INDEX)' torch torchvision)
	@$(VENV)/bin/pip install --disable-pip-version-check -e '.[all]' -c constraints.txt
	@touch $@
