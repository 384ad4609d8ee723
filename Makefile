# Everything that is needed is installed by these targets themselves, once.
# Needs: Debian 12, root, Python 3.11, make, apt.

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export VMIP_VENV := $(CURDIR)/.venv
export PYTHONDONTWRITEBYTECODE := 1
export LC_ALL := C.UTF-8

STESTR := stestr --test-path
SOURCES := vmip_plugin tests devstack

.PHONY: help setup demo test unit lint functional cloud soak bench docs clean

help:
	@echo 'make demo        show on this machine what vmip-plugin does'
	@echo 'make test        lint, unit, docs, functional and cloud, in this order'
	@echo 'make lint        ruff, hacking, mypy'
	@echo 'make unit        unit tests'
	@echo 'make docs        documentation, sample configuration, release notes'
	@echo 'make functional  tests with real DHCP servers, DHCP clients and RabbitMQ'
	@echo 'make cloud       tests on the one-machine OpenStack'
	@echo 'make soak        the same kills and lives many times over'
	@echo 'make bench       benchmarks; BENCH="margin --boots 3" for one, short'
	@echo 'make clean       stop and remove the one-machine cloud'

setup:
	@tools/bootstrap

demo: setup
	@python -m tests.cloud.demo $(DEMO)

test: lint unit docs functional cloud

lint: setup
	ruff check $(SOURCES)
	flake8 $(SOURCES)
	mypy

unit: setup
	$(STESTR) tests/unit run

docs: setup
	oslo-config-generator --config-file etc/oslo-config-generator/vmip.conf
	sphinx-build -q -W --keep-going -b html doc/source doc/build/html
	reno -q lint

functional: setup
	$(STESTR) tests/contract run --concurrency 2
	$(STESTR) tests/functional run --concurrency 2

cloud: setup
	tools/with-cloud $(STESTR) tests/cloud run --serial

soak: setup
	VMIP_KILL_ROUNDS=20 tools/with-cloud $(STESTR) tests/cloud run --serial test_kills

bench: setup
	@tools/with-cloud python -m tests.benchmarks $(BENCH)

clean:
	@python3 devstack/minicloud down --purge
