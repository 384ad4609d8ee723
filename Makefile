# Everything that is needed is installed by these targets themselves, once.
# Needs: Debian 12, root, Python 3.11, make, apt.

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VMIP_VENV := $(CURDIR)/.venv
export PYTHONDONTWRITEBYTECODE := 1
export LC_ALL := C.UTF-8

STESTR := stestr --test-path
SOURCES := vmip_plugin tests devstack doc/examples

.PHONY: help setup demo test unit lint functional databases neutron \
        neutron-short cloud quickstart soak bench docs clean

help:
	@echo 'make demo        show on this machine what vmip-plugin does'
	@echo 'make test        lint, unit, docs, functional, databases, neutron-short'
	@echo '                 and cloud, in this order'
	@echo 'make lint        ruff, hacking, mypy'
	@echo 'make unit        unit tests'
	@echo 'make docs        documentation, samples, release notes'
	@echo 'make functional  tests with real DHCP servers, DHCP clients and RabbitMQ'
	@echo 'make databases   tests of the list on MariaDB, Galera and PostgreSQL'
	@echo 'make neutron     tests of Neutron, with its IPAM driver and with ours;'
	@echo '                 an hour; neutron-short: some of them, some minutes'
	@echo 'make cloud       tests on the one-machine OpenStack'
	@echo 'make quickstart  the way of the documentation there and back, on the'
	@echo '                 one-machine OpenStack without the plugin'
	@echo 'make soak        the same kills and lives many times over'
	@echo 'make bench       benchmarks; BENCH="margin --boots 3" for one, short'
	@echo 'make clean       stop and remove the one-machine cloud'

setup:
	@tools/bootstrap

demo: setup
	@python -m tests.cloud.demo $(DEMO)

test: lint unit docs functional databases neutron-short cloud

lint: setup
	ruff check $(SOURCES)
	flake8 $(SOURCES)
	mypy

unit: setup
	$(STESTR) tests/unit run

docs: setup
	oslo-config-generator --config-file etc/oslo-config-generator/vmip.conf
	oslopolicy-sample-generator --config-file etc/oslo-policy-generator/vmip.conf
	sphinx-build -q -W --keep-going -b html doc/source doc/build/html
	reno -q lint

functional: setup
	$(STESTR) tests/contract run --concurrency 2
	$(STESTR) tests/functional run --concurrency 2 \
	  --exclude-regex '^tests\.functional\.database\.'

databases: setup
	for kind in mariadb postgresql; do python -m tests.databases $$kind --fast \
	  -- $(STESTR) tests/unit run \
	  '^tests\.unit\.(inventory|notifications\.test_replay)' || exit; done
	$(STESTR) tests/functional/database run --concurrency 2 \
	  --exclude-regex '\.test_storm\.'
	$(STESTR) tests/functional/database run --serial '\.test_storm\.'

neutron: setup
	python -m tests.upstream

neutron-short: setup
	python -m tests.upstream --short

cloud: setup
	tools/with-cloud $(STESTR) tests/cloud run --serial \
	  --exclude-regex '\.test_quickstart\.'

quickstart: setup
	tools/with-cloud $(STESTR) tests/cloud run --serial '\.test_quickstart\.'

soak: setup
	VMIP_KILL_ROUNDS=20 tools/with-cloud $(STESTR) tests/cloud run --serial test_kills

bench: setup
	@tools/with-cloud python -m tests.benchmarks $(BENCH)

clean:
	@python3 devstack/minicloud down --purge
