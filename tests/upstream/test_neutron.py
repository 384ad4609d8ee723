# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""Loads Neutron's own tests of IPAM and of the plugins that use it.

``VMIP_UPSTREAM`` says with which driver:

``internal``
    Neutron's own.
``vmip``
    ours, with an empty list: every subnet is Neutron's business.
``pools``
    ours, with a pool in every subnet from its create to its delete.
"""

import atexit
import importlib
import os
import pathlib
import tempfile
import unittest

from tests.upstream import ipam

MODULES = (
    'neutron.tests.unit.ipam.test_requests',
    'neutron.tests.unit.ipam.test_subnet_alloc',
    'neutron.tests.unit.ipam.test_utils',
    'neutron.tests.unit.ipam.drivers.neutrondb_ipam.test_db_api',
    'neutron.tests.unit.ipam.drivers.neutrondb_ipam.test_driver',
    'neutron.tests.unit.db.test_ipam_backend_mixin',
    'neutron.tests.unit.db.test_ipam_pluggable_backend',
    # the tests of the DB plugin, which were once in unit/db
    'neutron.tests.common.test_db_base_plugin_v2',
    'neutron.tests.unit.plugins.ml2.test_plugin',
)


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite,
               pattern: str | None) -> unittest.TestSuite:
    """See the documentation of unittest, "load_tests protocol"."""
    mode = os.environ.get('VMIP_UPSTREAM', 'internal')
    if mode != 'internal':
        folder = tempfile.TemporaryDirectory(prefix='vmip-upstream-')
        atexit.register(folder.cleanup)
        ipam.select(mode, pathlib.Path(folder.name))
    return unittest.TestSuite(
        loader.loadTestsFromModule(importlib.import_module(name))
        for name in MODULES)
