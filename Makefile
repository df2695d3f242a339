# A thin caller: env/setup.py does the work. Windows without make: python env/setup.py lab
PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && echo "$$p" && break; done)
ARGS ?=

lab test bench notebooks:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "Open-Weight Lab needs Python 3.11, 3.12 or 3.13 and found no Python 3 at all." >&2; \
	  echo "Install one (from python.org, or with your system's package manager), then call make again." >&2; \
	  exit 1; fi
	@"$(PYTHON)" env/setup.py $@ $(ARGS)

.PHONY: lab test bench notebooks
.DEFAULT_GOAL := lab
