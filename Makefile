# Everything that is needed is installed by these targets themselves, once.
# lint, unit, docs and neutron need Python 3.11, its venv, git and make; the
# others Debian 12, root and apt as well.

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VMIP_VENV := $(CURDIR)/.venv
export PYTHONDONTWRITEBYTECODE := 1
export PYTHONUNBUFFERED := 1
export LC_ALL := C.UTF-8

# Stages run side by side: each has a repository of its own.
STESTR = $(shell mkdir -p build/stestr/$@)\
         stestr --repo-url build/stestr/$@ --test-path
# What only "make full" runs; VMIP_FULL=1 lets any target run it.
QUICK := $(if $(VMIP_FULL),,--exclude-list tests/full.txt)
# Seconds of a storm on a database.
STORM := $(if $(VMIP_FULL),60,15)
SOURCES := vmip_plugin tests devstack doc/examples

.PHONY: help python setup demo test full lint unit docs contract functional \
        inventory databases neutron neutron-short cloud quickstart soak \
        bench clean

help:
	@echo 'make demo        show on this machine what vmip-plugin does'
	@echo 'make test        decides whether a change is good: lint, unit, docs,'
	@echo '                 contract, functional, inventory, databases,'
	@echo '                 neutron-short and cloud; half an hour'
	@echo 'make full        the same with all that takes long, and neutron;'
	@echo '                 two hours'
	@echo 'without root and apt:'
	@echo 'make lint        ruff, hacking, mypy'
	@echo 'make unit        unit tests'
	@echo 'make docs        documentation, samples, release notes'
	@echo 'make neutron     tests of Neutron, with its IPAM driver and with ours;'
	@echo '                 an hour; neutron-short: some of them, some minutes'
	@echo 'as root on Debian 12, which they install packages on:'
	@echo 'make contract    what every DHCP driver does, on real DHCP servers'
	@echo 'make functional  tests with real DHCP servers, DHCP clients and RabbitMQ'
	@echo 'make inventory   unit tests of the list, on MariaDB and PostgreSQL'
	@echo 'make databases   tests of the list on MariaDB, Galera and PostgreSQL'
	@echo 'make cloud       tests on the one-machine OpenStack'
	@echo 'make quickstart  the way of the documentation there and back, on the'
	@echo '                 one-machine OpenStack without the plugin'
	@echo 'make soak        property tests with other inputs each time, and the'
	@echo '                 same kills and lives many times over'
	@echo 'make bench       benchmarks; BENCH="margin --boots 3" for one, short'
	@echo 'make clean       stop and remove the one-machine cloud'
	@echo 'VMIP_FULL=1 make TARGET runs what tests/full.txt leaves to "make full".'

python:
	@tools/bootstrap --python-only

setup:
	@tools/bootstrap

demo: setup
	@python -m tests.cloud.demo $(DEMO)

# The stages of a lane wait for servers most of the time, and not for the same.
# What they need is installed before: nothing changes under one that runs.
# Where that fails, those that need less run all the same.
test:
	@tools/bootstrap || tools/bootstrap --python-only || true
	@tools/stages lint,unit,docs,contract,functional \
	  cloud,inventory,databases,neutron-short

full:
	@tools/bootstrap || tools/bootstrap --python-only || true
	@VMIP_FULL=1 VMIP_KILL_ROUNDS=3 tools/stages lint,unit,docs,contract,functional \
	  cloud,inventory,databases,neutron

# Each runs all of its commands, also after one that fails.
lint: python
	@status=0; set -x; ruff check $(SOURCES) tools/stages || status=1; \
	flake8 $(SOURCES) tools/stages || status=1; mypy || status=1; \
	{ exit $$status; } 2>/dev/null

unit: python
	$(STESTR) tests/unit run

docs: python
	oslo-config-generator --config-file etc/oslo-config-generator/vmip.conf
	oslopolicy-sample-generator --config-file etc/oslo-policy-generator/vmip.conf
	sphinx-build -q -W --keep-going -b html doc/source doc/build/html
	reno -q lint

contract: setup
	$(STESTR) tests/contract run --concurrency 2 $(QUICK)

functional: setup
	$(STESTR) tests/functional run --concurrency 4 $(QUICK) \
	  --exclude-regex '^tests\.functional\.database\.'

inventory: setup
	@status=0; for kind in mariadb postgresql; do \
	python -m tests.databases $$kind --fast -- $(STESTR) tests/unit run \
	  '^tests\.unit\.(inventory|notifications\.test_replay)' || status=1; \
	done; exit $$status

# The storms are alone, so that their processes meet each other.
databases: setup
	@status=0; $(STESTR) tests/functional/database run --concurrency 2 \
	  $(QUICK) --exclude-regex '\.test_storm\.' || status=1; \
	VMIP_STRESS_SECONDS=$(STORM) $(STESTR) tests/functional/database run \
	  --serial '\.test_storm\.' || status=1; exit $$status

neutron: python
	python -m tests.upstream

neutron-short: python
	python -m tests.upstream --short

cloud: setup
	tools/with-cloud $(STESTR) tests/cloud run --serial $(QUICK)

quickstart: setup
	tools/with-cloud $(STESTR) tests/cloud run --serial '\.test_quickstart\.'

soak: setup
	@status=0; VMIP_EXAMPLES=20 $(STESTR) tests/unit run || status=1; \
	VMIP_EXAMPLES=20 $(STESTR) tests/contract run --concurrency 2 \
	  || status=1; \
	export VMIP_FULL=1 VMIP_KILL_ROUNDS=20 VMIP_KILL_SEED=$$RANDOM; \
	echo "VMIP_KILL_SEED=$$VMIP_KILL_SEED"; tools/with-cloud \
	  $(STESTR) tests/cloud run --serial test_kills || status=1; exit $$status

bench: setup
	@tools/with-cloud python -m tests.benchmarks $(BENCH)

clean:
	@python3 devstack/minicloud down --purge
