# Two commands: `make run` does all set-up and measures, `make test` does all set-up and
# runs every test. Both can be repeated; both say what they install. As root or with sudo.

PREFIX  ?= /usr/local
LIBDIR  := $(PREFIX)/lib/zctrace
VENV    := .venv
# The distribution's own: the one that can import its bcc.
PYTHON  := /usr/bin/python3
PIP_FLAGS := --quiet --disable-pip-version-check --root-user-action=ignore
SUDO    := $(if $(filter 0,$(shell id -u)),,sudo)

# From the distribution: BCC compiles and loads the probes; capstone finds the return
# instructions to watch; pyelftools reads how programs are linked, and their lines of code; venv
# holds the Python packages of pyproject.toml; QEMU boots a kernel where the host's cannot be
# measured, kmod and zstd load and unpack its modules; e2fsprogs, xfsprogs and btrfs-progs make
# the payload's file systems; iproute2 and ethtool lay the cable for --nic; distro-info-data
# names the releases to look for kernels in.
PACKAGES := python3-bpfcc python3-capstone python3-pyelftools python3-venv qemu-system-x86 \
	kmod zstd e2fsprogs xfsprogs btrfs-progs iproute2 ethtool \
	distro-info-data

# Debian 12 has 17 only, and later releases do not have it any more.
JDK := openjdk-$(shell grep -qs CODENAME=bookworm /etc/os-release && echo 17 || echo 25)-jdk-headless

# For the tests alone: the browser that the HTML report is looked at with, what performs the
# strategies of Java, which are not possible without, what fetches Netty for some of them, a
# program that needs no library, and what compiles the example in C.
TEST_PACKAGES := chromium poppler-utils $(JDK) maven busybox-static gcc libc6-dev

# For the systems of others that are traced: what fetches them, and what runs them.
SYSTEMS_PACKAGES := maven $(JDK)

# The tests of a file are one worker's, for they share guests; the order is tests/conftest.py's.
BY_FILE := --dist loadfile --no-loadscope-reorder

.PHONY: help run results record bench deb test test-bcc test-beside test-deb test-fleet test-fresh test-systems test-kernels
.PHONY: lecture test-reliability check docs install uninstall clean system
help:
	@echo "make run        set up what is missing, then: zctrace run"
	@echo "make results    measure everything on four kernels, in virtual machines; write docs/results.md"
	@echo "make test       set up what is missing, then every test, live ones included"
	@echo "make test-bcc   the meter with the BCC of Debian 12, 13 and sid, in virtual machines"
	@echo "make test-beside  measuring while captures, tracers and debuggers are at work: an hour"
	@echo "make test-fresh what README says, on a minimal Debian 12, 13 and sid, as root and with sudo"
	@echo "make test-fleet what Spark reads of Parquet files; fetches PySpark"
	@echo "make test-systems  a Kafka broker, fetched, traced in a virtual machine: eight minutes"
	@echo "make test-kernels  known transfers on every kernel line and on unusual machines: an hour; write docs/reach.md"
	@echo "make test-reliability  zctrace killed, starved and confined, again and again: hours; write docs/reliability.md"
	@echo "make bench      what tracing costs, in instructions, on two kernels; write docs/cost.md"
	@echo "make record     measure anew what the unit tests have recorded of kernels and runs"
	@echo "make docs       the documents as a site, build/site/index.html"
	@echo "make check      ruff, mypy and the tests that need neither root, kernel nor browser"
	@echo "make install    put zctrace on everybody's PATH, root's included"
	@echo "make deb        a package of Debian 12 and 13, into build/deb"
	@echo "make test-deb   that package and Containerfile's steps, on a minimal Debian 12 and 13"
	@echo "make uninstall  undo that; fetched kernels stay in /var/cache/zctrace"
	@echo "make clean      remove what was built in this folder"

run: install
	$(SUDO) $(PREFIX)/bin/zctrace run $(ARGS)

# One after the other, in virtual machines whatever this machine's own kernel can do; then
# what is claimed of systems, by those results and by what test-systems has seen.
KERNELS := 5.10 6.1 6.12 7.3
results: install
	$(MAKE) test-systems ARGS= ZCTRACE_REQUIRE_LIVE=1
	$(SUDO) $(PREFIX)/bin/zctrace run --all $(KERNELS:%=--kernel %) --force \
		--markdown docs/results.md --json build/results.json $(ARGS)
	$(VENV)/bin/python -m tests.systems.report docs/results.md \
		build/results.json $(RECORDED) --kafka build/kafka.json
	$(MAKE) lecture

# docs/lecture: the textbook's five rows on every kernel, from the disk to a network card. Five
# minutes.
lecture: install
	$(SUDO) $(PREFIX)/bin/zctrace run read-write mmap-write sendfile splice \
		--nic e1000 --nic e1000-nosg --cache cold $(KERNELS:%=--kernel %) --force \
		--json build/lecture.json
	$(VENV)/bin/python -m tests.lecture build/lecture.json

# Java 25, which Debian 12 does not have, and which makes other calls than 17.
RECORDED := tests/evidence/java-25-6.1.json

# Beside what everything needs, what only tests do.
test: PACKAGES += $(TEST_PACKAGES)
# Two workers, so that two guests run at a time: each has one processor and 3 GiB of memory.
test: $(VENV)/.docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m tests.links
	$(VENV)/bin/mypy
	@# Once, and by whom the folder is: each run copies what is compiled, or compiles it.
	$(VENV)/bin/python -m compileall -q tracer probes workloads
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 ZCTRACE_REQUIRE_LIVE=$(ZCTRACE_REQUIRE_LIVE) \
		$(VENV)/bin/python -m pytest -p no:cacheprovider -n 2 $(BY_FILE) \
		--durations=10 --durations-min=10 $(ARGS)

# Small root file systems, 500 MB for each release, are made in zctrace's cache; remove
# /var/cache/zctrace/bcc to have them made anew. ARGS=6.1 takes that kernel only.
test-bcc test-deb test-fresh: PACKAGES += mmdebstrap
test-bcc: $(VENV)/.installed
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.bcc.check_bcc $(ARGS)

# Ten minutes for each release and user, 2 GB while it runs. ARGS="trixie root" takes these.
test-fresh: $(VENV)/.installed
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.fresh.check_fresh $(ARGS)

# Fetches Apache Kafka from Maven Central, as Maven is set up here, 45 MB with all that it
# needs, into zctrace's cache; remove /var/cache/zctrace/kafka to have it fetched anew.
test-systems: PACKAGES += $(SYSTEMS_PACKAGES)
test-systems: $(VENV)/.installed
	@echo "Apache Kafka comes from Maven Central, once, into /var/cache/zctrace/kafka"
	@mkdir -p build
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 ZCTRACE_REQUIRE_LIVE=$(ZCTRACE_REQUIRE_LIVE) \
		$(VENV)/bin/python -m pytest -p no:cacheprovider tests/systems $(ARGS)

# An hour, emulated. ARGS="6.18 7.2 '6.1, nokaslr'" takes these alone, and keeps the other rows.
# Fetches each kernel that is missing, 100 to 170 MB, into zctrace's cache.
test-kernels: $(VENV)/.installed
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.kernel_lines $(ARGS)

# Hours, emulated. ARGS="kills --tries 20" takes these alone, so often, and keeps the other rows;
# ARGS=--help tells of the others.
test-reliability: $(VENV)/.installed
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.reliability $(ARGS)

# What unit tests know of kernels and runs, measured anew: a quarter of an hour. ARGS names what:
# kernels, evidence, programs.
record: PACKAGES += $(TEST_PACKAGES)
record: $(VENV)/.installed
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.record $(ARGS)

# Fetches PySpark, 500 MB, into .venv.
test-fleet: PACKAGES += $(JDK)
test-fleet: $(VENV)/.installed
	$(VENV)/bin/pip install $(PIP_FLAGS) 'pyspark>=4'
	$(VENV)/bin/python -m pytest -p no:cacheprovider tests/unit/test_parquet.py $(ARGS)

# The compiler is for the workload and the emulator's plugin. The other tools that zctrace is
# compared with are not installed: the row of a missing tool says what to install.
BENCH_PACKAGES := gcc libc6-dev
bench: PACKAGES += $(BENCH_PACKAGES)
# Twenty minutes. ARGS="--kernel 6.1 --only untraced,trace" takes one, and writes no document.
bench: $(VENV)/.installed
	@mkdir -p build
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.bench \
		$(or $(ARGS),--write)

# Other tracers, debuggers and captures at work on the same machine, one after the other.
test-beside: PACKAGES += $(TEST_PACKAGES)
test-beside: $(VENV)/.installed
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 ZCTRACE_EVERY_CASE=1 ZCTRACE_REQUIRE_LIVE=1 \
		$(VENV)/bin/python -m pytest -p no:cacheprovider tests/live/test_beside.py $(ARGS)

check: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m tests.links
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q -n auto $(BY_FILE) -m "not live and not browser" $(ARGS)

# Every package is looked at; apt is only called for those that are missing.
system:
	@missing=""; \
	for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' \
			|| missing="$$missing $$package"; \
	done; \
	[ -z "$$missing" ] || command -v apt-get >/dev/null || { \
		echo "make installs with apt-get only: see docs/install.md, then make PACKAGES="; exit 1; \
	}; \
	[ -z "$$missing" ] || { \
		echo "installing from the distribution:$$missing"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	}

$(VENV)/.installed: pyproject.toml | system
	@echo "installing into $(VENV): zctrace's Python packages and the test tools"
	@$(PYTHON) -m venv --clear --system-site-packages $(VENV)
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) --editable '.[test]'
	@touch $@

# 170 MB, which make check does without.
$(VENV)/.docs: $(VENV)/.installed
	@echo "installing into $(VENV): mkdocs, which makes a site of the documents"
	@$(VENV)/bin/python -m pip install $(PIP_FLAGS) --editable '.[docs]'
	@touch $@

# Needs no network to be read: open build/site/index.html.
docs: $(VENV)/.docs
	$(VENV)/bin/python -m tests.documents
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet

# A copy that everybody can read: strategies run as the user who called sudo, who may not
# be able to look into this folder. It names the commit: each new one is installed anew.
SOURCES := pyproject.toml setup.py README.md LICENSE $(wildcard .git/logs/HEAD) \
	$(shell find probes release workloads tracer -type f -not -path '*/__pycache__/*')

# The man page and the completions, as the package has them.
SHARED := man/man1/zctrace.1 bash-completion/completions/zctrace \
	zsh/site-functions/_zctrace fish/vendor_completions.d/zctrace.fish

ISOLATED := '1s|^\(\#!.*/python[0-9.]*\)$$|\1 -I|'

install: $(LIBDIR)/.installed
$(LIBDIR)/.installed: $(SOURCES) | system
	@echo "installing into $(LIBDIR): zctrace and its Python packages"
	@[ -x $(LIBDIR)/bin/python ] || $(SUDO) $(PYTHON) -m venv --system-site-packages $(LIBDIR)
	@copy=$$(mktemp -d) && trap '$(SUDO) rm -rf "$$copy"' EXIT && \
		cp -r probes release workloads tracer pyproject.toml setup.py README.md LICENSE \
			"$$copy" && \
		$(PYTHON) tracer/_version.py >"$$copy/tracer/_version.txt" && \
		$(SUDO) sh -c 'umask 022 && "$$0" -m pip install $(PIP_FLAGS) "$$1" && \
			"$$0" -m pip install $(PIP_FLAGS) --force-reinstall --no-deps "$$1"' \
			$(LIBDIR)/bin/python "$$copy"
	@# Isolated, for root: neither the home nor the variables of whoever calls sudo have a say.
	@$(SUDO) sed -i $(ISOLATED) $(LIBDIR)/bin/zctrace
	@$(SUDO) mkdir -p $(PREFIX)/bin
	@$(SUDO) ln -sf $(LIBDIR)/bin/zctrace $(PREFIX)/bin/zctrace
	@for name in $(SHARED); do \
		$(SUDO) mkdir -p $(PREFIX)/share/$$(dirname $$name) && \
		$(SUDO) ln -sf $(LIBDIR)/share/$$name $(PREFIX)/share/$$name || exit; \
	done
	@$(SUDO) touch $@

# Fetches Typer and msgspec, which the package has for itself: debian/rules says why.
deb test-deb: PACKAGES += debhelper dh-python dpkg-dev lintian
deb: $(VENV)/.installed
	@release/deb.sh $(CURDIR)/$(VENV)/bin/python

# Fetches small root file systems, as test-fresh does, and packages of 600 MB.
test-deb: deb
	$(SUDO) env PYTHONDONTWRITEBYTECODE=1 $(VENV)/bin/python -m tests.fresh.check_deb $(ARGS)

uninstall:
	$(SUDO) rm -rf $(LIBDIR) $(PREFIX)/bin/zctrace $(SHARED:%=$(PREFIX)/share/%)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
