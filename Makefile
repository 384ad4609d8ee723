# Everything that is needed is installed by these targets themselves, once.
# Needs: Debian 12, root, Python 3.11, make, apt.

TOX := .tox/bootstrap/bin/tox
SHELL := /bin/bash

.PHONY: help demo test unit lint functional cloud soak bench docs clean

help:
	@echo 'make demo        show on this machine what vmip-plugin does'
	@echo 'make test        lint, unit tests, tests on real servers and on a real OpenStack'
	@echo 'make unit        unit tests'
	@echo 'make lint        ruff, hacking, mypy'
	@echo 'make functional  tests with real DHCP servers, clients and RabbitMQ'
	@echo 'make cloud       tests on the one-machine OpenStack'
	@echo 'make soak        long runs: churn and kills'
	@echo 'make bench       benchmarks; BENCH=name for one, SIZE=small for a short run'
	@echo 'make docs        documentation, sample configuration, release notes'
	@echo 'make clean       stop and remove the one-machine cloud'

$(TOX): tools/bootstrap
	@tools/bootstrap

.PHONY: setup
setup: $(TOX)
	@python3 devstack/minicloud install

test: setup
	@$(TOX) -q run -e pep8,py3,docs,functional,cloud

unit: setup
	@$(TOX) -q run -e py3

lint: setup
	@$(TOX) -q run -e pep8

demo functional cloud soak: setup
	@$(TOX) -q run -e $@

bench: setup
	@$(TOX) -q run -e bench -- $(BENCH)

docs: setup
	@$(TOX) -q run -e genconfig,docs,releasenotes

clean:
	@python3 devstack/minicloud down --purge
