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

"""Neutron's own IPAM driver, as a peer."""

import uuid

from neutron.db.migration.models import head
from neutron.ipam.drivers.neutrondb_ipam import db_api as ipam_db
from neutron.ipam.drivers.neutrondb_ipam import driver
from neutron.ipam import requests as ipam_req
from neutron_lib import context as n_context
from neutron_lib.db import api as n_db
from oslo_config import cfg
from oslo_db import options as db_options

from tests.benchmarks import allocation
from tests.unit import base as unit


class Peer:
    """neutrondb_ipam on the tables that it needs.

    :param url: of an empty database.
    """

    def __init__(self, url: str) -> None:
        db_options.set_defaults(cfg.CONF, connection=url)
        cfg.CONF([], project='neutron', default_config_files=[])
        metadata = head.get_metadata()
        metadata.create_all(
            n_db.get_context_manager().writer.get_engine(),
            tables=[metadata.tables[name] for name in (
                'ipamsubnets', 'ipamallocationpools', 'ipamallocations')])
        self._table = metadata.tables['ipamallocations']

    def subnet(self, used: int) -> str:
        """Make a /16 subnet that is used so far."""
        subnet = str(uuid.uuid4())
        context = n_context.get_admin_context()
        with n_db.CONTEXT_WRITER.using(context):
            made = driver.NeutronDbSubnet.create_from_subnet_request(
                ipam_req.SpecificSubnetRequest(
                    'project', subnet, allocation.CIDR, gateway_ip=None,
                    allocation_pools=None), context)
            rows = [{'ip_address': str(unit.ip(allocation.FIRST + n)),
                     'status': 'ALLOCATED', 'ipam_subnet_id':
                     made.subnet_manager._ipam_subnet_id}
                    for n in allocation.spread(used)]
            for part in range(0, len(rows), 5000):
                context.session.execute(self._table.insert(),
                                        rows[part:part + 5000])
        return subnet

    def allocate(self, subnet: str) -> None:
        """Do what Neutron does for a port, less what Neutron's core does."""
        context = n_context.get_admin_context()
        with n_db.CONTEXT_WRITER.using(context):
            found = ipam_db.IpamSubnetManager.load_by_neutron_subnet_id(
                context, subnet)
            driver.NeutronDbSubnet(
                found['id'], context, cidr=allocation.CIDR, subnet_id=subnet,
            ).allocate(ipam_req.AnyAddressRequest())
