# `make help` lists the targets.  Each does its own set-up, in a virtual environment.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
VM_KERNELS ?= 5.10 6.1 6.12 6.18 newest 6.12-aarch64
VM_ARGS ?=
WHEELS_ARGS ?=
PYTHONS ?=
JOBS ?=
RELEASE_ARGS ?=

# A Python of one's own choice (make PYTHON=python3.13 test) has an environment of its own.
ifndef VENV
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], sys.abiflags))')
endif
endif

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
PATH := $(abspath $(VENV))/bin:$(PATH)
export PATH

C_FILES := $(shell find csrc -name '*.[ch]')
NATIVE := $(C_FILES) csrc/steps.def csrc/exports.map setup.py

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-suite test-helper test-stdlib containertest vmtest lint format bench wheel wheels pytest-all freethreaded musltest release-check fuzz soak sanitize clean build

help: ## this list
	@echo 'make [PYTHON=python3.X] TARGET'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: build ## run a program in new pid, uts, ipc and mnt namespaces, and show them
	@$(PY) examples/demo.py

test: test-suite test-helper test-stdlib ## all of the next three (NSEXT_MUST_WORK=1: skip none)

test-suite: build $(VENV)/.test ## the tests (PYTEST_ARGS='-k join -x')
	$(PY) -m pytest $(PYTEST_ARGS)

# What failed last is remembered apart.  5: PYTEST_ARGS have left none.
CACHE = $(if $(findstring no:cacheprovider,$(PYTEST_ARGS)),,-o cache_dir=.pytest_cache/helper)
test-helper: build $(VENV)/.test ## those of the spawn core once more, all in the helper body
	$(PY) -m pytest --body=helper $(CACHE) $(PYTEST_ARGS) || [ $$? = 5 ]

test-stdlib: build ## CPython's own tests of subprocess and asyncio, over nsext.Popen
	@# By the environment's base, since some of them are skipped in an environment.
	$$($(PY) -c 'import sys; print(sys._base_executable)') tests/stdlib/run_subprocess.py
	$$($(PY) -c 'import sys; print(sys._base_executable)') tests/stdlib/run_asyncio.py

# In `make test` they run too, with this tree in place of the wheel.
containertest: build $(VENV)/.test $(VENV)/.wheel ## the wheel in podman's containers: root, a user, seccomp profiles
	@rm -rf build/containers && mkdir -p build/containers
	$(PY) -m build --no-isolation --outdir build/containers >build/containers/log 2>&1 \
	    || { cat build/containers/log; exit 1; }
	$(PIP) install --no-deps --no-index --target build/containers/site build/containers/*.whl
	NSEXT_CONTAINER_PACKAGE=$(CURDIR)/build/containers/site/nsext $(PY) -m pytest tests/containers $(PYTEST_ARGS)

# Debian's kernels in qemu; needs qemu-system-x86, qemu-system-arm.  VM_ARGS goes to pytest, there as
# root, in place of the selection.  The wheel for another architecture is made as `make wheels` does.
VM_TOOLS = $(if $(findstring aarch64,$(VM_KERNELS)),$(VENV)/.wheel)
vmtest: build $(VENV)/.test $(VM_TOOLS) ## tests on other kernels (VM_KERNELS='6.1 newest' VM_ARGS=tests/vm)
	$(PY) tools/vm.py --jobs $$(nproc) $(addprefix --kernel ,$(VM_KERNELS)) -- $(VM_ARGS)

TIDY := clang-tidy --quiet
TIDY_FLAGS = -std=c11 -isystem $(shell $(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))') \
    -isystem $(shell $${CC:-cc} -print-file-name=include)
TIDY_LOG = >build/lint/tidy 2>&1 || { cat build/lint/tidy; exit 1; }

lint: build $(VENV)/.lint $(VENV)/.wheel ## style, types, warnings and analyzers of Python, C and the packaging
	ruff check
	ruff format --check
	mypy nsext tests/typing
	@# Where there is a stub mypy reads nothing else: so once more, the sources.
	@rm -rf build/lint && mkdir -p build/lint/nsext
	@cp -r nsext/*.py nsext/_cli nsext/_native.pyi build/lint/nsext
	cd build/lint && mypy --config-file $(CURDIR)/pyproject.toml nsext
	$(PY) -m mypy.stubtest nsext --concise --allowlist tools/stubtest.allow
	clang-format --dry-run -Werror $(C_FILES)
	$(TIDY) csrc/plan.c csrc/parent/*.c csrc/py/*.c csrc/child/*.c -- $(TIDY_FLAGS) $(TIDY_LOG)
	$(TIDY) csrc/helper/*.c -- -DNSX_HELPER $(TIDY_FLAGS) $(TIDY_LOG)
	CFLAGS='-O2 -Werror' $(PY) setup.py --quiet build_ext --build-temp build/lint --build-lib build/lint
	@# gcc has an analyzer.
	@if $${CC:-gcc} --version 2>/dev/null | grep -q 'Free Software'; then \
	    echo 'gcc -fanalyzer'; \
	    CFLAGS='-O2 -Werror -fanalyzer' $(PY) setup.py --quiet build_ext --force \
	        --build-temp build/lint --build-lib build/lint; \
	fi
	$(PY) tools/wheels_planned.py
	bash -n .ci/run

format: $(VENV)/.lint ## rewrite Python and C in the style that lint asks for
	ruff check --fix --exit-zero
	ruff format
	clang-format -i $(C_FILES)

bench: build ## measure side by side with what else can spawn (BENCH_ARGS=...)
	$(PY) benchmarks/bench.py $(BENCH_ARGS)

soak: build $(VENV)/.test ## an hour of spawns in eight threads: does anything grow? (SOAK_ARGS='--seconds 60')
	$(PY) tests/soak.py $(SOAK_ARGS)

# From the sdist, so that it is complete; not from build/, where old files may lie.
wheel: build $(VENV)/.wheel ## build, check, install and try this machine's wheel
	@rm -rf build/wheel && mkdir -p build/wheel
	$(PY) -m build --no-isolation --outdir build/wheel >build/wheel/log 2>&1 \
	    || { cat build/wheel/log; exit 1; }
	twine check --strict build/wheel/*.tar.gz build/wheel/*.whl
	auditwheel --verbose repair --wheel-dir build/wheel/repaired build/wheel/*.whl 2>build/wheel/log \
	    || { cat build/wheel/log; exit 1; }
	auditwheel show build/wheel/repaired/*.whl
	$(PY) tools/wheel_check.py build/wheel/*.tar.gz build/wheel/repaired/*.whl
	@case $$(echo build/wheel/repaired/*.whl) in *abi3*) \
	    set -x; abi3audit --strict --summary build/wheel/repaired/*.whl;; esac
	$(PY) -m venv build/wheel/empty
	build/wheel/empty/bin/python -m pip --disable-pip-version-check --quiet install --no-index \
	    build/wheel/repaired/*.whl
	cd build/wheel && empty/bin/python -I ../../tools/spawn_check.py
	@mkdir -p wheelhouse && cp build/wheel/repaired/*.whl build/wheel/*.tar.gz wheelhouse
	@ls wheelhouse

wheels: build $(VENV)/.wheel ## every wheel, for both architectures and C libraries, into wheelhouse/
	$(PY) tools/wheels.py $(WHEELS_ARGS)

# Those that are not here come from Debian's sid, for which it takes root, mmdebstrap and a mirror.
pytest-all: build $(VENV)/.test ## the tests on every CPython to be had (PYTHONS='3.12'), with the wheels of `make wheels`
	PYTHONS='$(PYTHONS)' $(PY) tools/pytest_all.py $(if $(JOBS),--jobs $(JOBS)) $(PYTEST_ARGS)

# Compiled here, once, from the sources of Debian: it takes a mirror of trixie, and ten minutes.
freethreaded: build $(VENV)/.test $(VENV)/.wheel ## the tests on a CPython without a GIL, with the wheel for it
	$(PY) tools/pytest_built.py 3.13t $(PYTEST_ARGS)

musltest: build $(VENV)/.test $(VENV)/.wheel ## the tests on a CPython whose C library is musl, with the wheel for that
	$(PY) tools/pytest_built.py 3.13-musl $(PYTEST_ARGS)

release-check: build $(VENV)/.test $(VENV)/.lint $(VENV)/.wheel ## all of this, and one table in docs/release.md
	$(PY) tools/release_check.py $(RELEASE_ARGS)

# What it finds that is new is kept in build/fuzz/corpus.
FUZZ_SECONDS ?= 120
fuzz: build $(VENV)/.test ## hostile plans (clang's libFuzzer), and any keywords (hypothesis)
	@mkdir -p build/fuzz/corpus
	$(PY) tests/fuzz/seeds.py build/fuzz/seeds
	clang -g -O1 -std=c11 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	    tests/fuzz/plan.c csrc/plan.c -o build/fuzz/plan
	build/fuzz/plan -max_total_time=$(FUZZ_SECONDS) -max_len=16384 -timeout=10 -verbosity=0 \
	    -print_final_stats=1 -artifact_prefix=build/fuzz/ build/fuzz/corpus build/fuzz/seeds
	NSEXT_FUZZ_SECONDS=$(FUZZ_SECONDS) $(PY) -m pytest tests/test_any_keywords.py

# A copy of the tree, with its core built in place; the child's code stays without (setup.py).  The
# core's tests, in which all of the C code is run; SANITIZE_TESTS=tests has all.  Not those that the
# runtime disturbs: it keeps what is freed, catches signals, and sets a limit.  An interpreter that a
# test starts without the runtime has it late, and without its view of the heap.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SANITIZE_NOT := not nothing_grows and not import_has_no_effects and not limits_cannot_be_put_back
SANITIZE_TESTS ?= $(shell $(PYTHON) tests/bodies.py)
sanitize: build $(VENV)/.test ## the core's tests under AddressSanitizer, UBSan; TSan and valgrind over C harnesses
	@rm -rf build/sanitize && mkdir -p build/sanitize
	@cp -r csrc nsext tests setup.py pyproject.toml README.md LICENSE build/sanitize
	cd build/sanitize && CFLAGS='$(SANITIZE) -O1 -g' LDFLAGS='$(SANITIZE)' \
	    $(abspath $(PY)) setup.py --quiet build_ext --inplace --force
	cd build/sanitize && PYTHONMALLOC=malloc UBSAN_OPTIONS=print_stacktrace=1 \
	    ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:verify_asan_link_order=0:handle_segv=0:handle_abort=0 \
	    LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    $(abspath $(PY)) -m pytest -k '$(SANITIZE_NOT)' $(SANITIZE_TESTS) $(PYTEST_ARGS)
	NSEXT_THREAD_ROUNDS=2000 $(PY) -m pytest tests/test_parent_threads.py
	@if command -v valgrind >/dev/null; then \
	    set -ex; cc -std=c11 -O1 -g -I csrc tests/plan_check.c csrc/plan.c -o build/sanitize/plan_check; \
	    cc -std=c11 -O1 -g tests/fuzz/plan.c tests/fuzz/replay.c csrc/plan.c -o build/sanitize/replay; \
	    $(PY) tests/fuzz/seeds.py build/sanitize/seeds; \
	    valgrind -q --error-exitcode=9 build/sanitize/plan_check; \
	    valgrind -q --error-exitcode=9 build/sanitize/replay build/sanitize/seeds/*; \
	else echo 'no valgrind here: the checks of plans have not run under it'; fi

clean: ## remove all that was made, environments too
	rm -rf .venv .venv-* build dist wheelhouse *.egg-info nsext/*.so nsext/nsext-helper
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up: a stamp for each stage of the environment

build: $(VENV)/.build

# Registries have bad moments.
define install
	@for n in 1 2 3; do \
	    $(PIP) install $(1) 2>$(VENV)/pip.log && exit 0; \
	    cat $(VENV)/pip.log >&2; echo "pip failed ($$n of 3)" >&2; sleep $$((n * 3)); \
	done; exit 1
endef

# Anew where its interpreter is gone.
ifneq ($(wildcard $(VENV)/.venv),)
ifneq ($(shell $(PY) -c 'print("ok")' 2>&1),ok)
$(shell rm -rf $(VENV))
endif
endif

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "nsext needs Python 3.11 or newer, and $(PYTHON) is not: $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Another one: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; \
	    sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || { \
	    echo "Python.h is missing: install Python's headers (python3-dev, python3-devel)." >&2; exit 1; }
	@test -x $(PY) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); } || { \
	    echo "python -m venv failed: it may be a package of its own (python3-venv)." >&2; exit 1; }
	@touch $@

$(VENV)/.setuptools: pyproject.toml tools/requirements.py $(VENV)/.venv
	@$(PY) tools/requirements.py build-system >$(VENV)/build.txt
	$(call install,--requirement $(VENV)/build.txt)
	@touch $@

# setuptools compiles all when one of them has changed: sources, headers and steps.def, parent's
# and child's alike (depends= in setup.py).
$(VENV)/.build: $(NATIVE) pyproject.toml $(VENV)/.setuptools
	@echo "building nsext._native"
	@$(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat \
	    --editable . 2>$(VENV)/pip.log || { cat $(VENV)/pip.log >&2; exit 1; }
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.wheel: $(VENV)/.%: pyproject.toml tools/requirements.py $(VENV)/.venv
	@echo "installing what '$*' needs"
	@$(PY) tools/requirements.py $* >$(VENV)/$*.txt
	$(call install,--requirement $(VENV)/$*.txt)
	@touch $@
