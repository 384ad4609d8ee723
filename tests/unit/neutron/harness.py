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

"""A Neutron of one process: its API and ML2 on a database in a file.

Neutron keeps its options, its engine and its plugins in the process, so it is
started once; each test gets empty tables.
"""

import atexit
import functools
import json
import pathlib
import shutil
import tempfile
from typing import Any
import uuid

from neutron.api.v2 import router
from neutron.common import config
from neutron.conf.plugins.ml2 import config as ml2
from neutron.db.migration.models import head
from neutron import manager
from neutron import policy
from neutron_lib import context as n_context
from neutron_lib.db import api as db_api
import webob

CONF = """
[DEFAULT]
transport_url = fake://
core_plugin = ml2
service_plugins =
ipam_driver = vmip
notify_nova_on_port_status_changes = False
notify_nova_on_port_data_changes = False
state_path = {path}
[database]
connection = sqlite:///{path}/neutron.sqlite
[oslo_policy]
policy_file = {path}/policy.yaml
[ml2]
mechanism_drivers =
type_drivers = local
"""

PROJECT = 'aaaa0000aaaa0000aaaa0000aaaa0000'


@functools.cache
def api() -> Any:
    """Return Neutron's API as a WSGI application."""
    path = pathlib.Path(tempfile.mkdtemp(prefix='vmip-neutron-'))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    (path / 'policy.yaml').write_text('{}\n')
    file = path / 'neutron.conf'
    file.write_text(CONF.format(path=path))
    config.register_common_config_options()
    ml2.register_ml2_plugin_opts()
    config.init(['--config-file', str(file)])
    head.get_metadata().create_all(
        db_api.get_context_manager().writer.get_engine())
    manager.init()
    made = router.APIRouter()
    policy.reset()
    policy.init()
    return made


def empty() -> None:
    """Take every row out of Neutron's database."""
    engine = db_api.get_context_manager().writer.get_engine()
    with engine.begin() as connection:
        for table in reversed(head.get_metadata().sorted_tables):
            connection.execute(table.delete())


def call(method: str, path: str, body: Any = None, *, admin: bool = True,
         project: str = PROJECT, request: str | None = None
         ) -> tuple[int, Any]:
    """Send one request; return status and body of the answer."""
    sent = webob.Request.blank(
        f'/{path}', method=method, content_type='application/json',
        body=b'' if body is None else json.dumps(body).encode())
    sent.environ['neutron.context'] = n_context.Context(
        'user', project, is_admin=admin, global_request_id=request,
        roles=['member', 'reader'] + ['admin'] * admin)
    answer = sent.get_response(api())
    return answer.status_int, json.loads(answer.body or b'null')


def network() -> str:
    """Make a provider network that all projects share."""
    status, body = call('POST', 'networks', {'network': {
        'name': str(uuid.uuid4()), 'shared': True}})
    assert status == 201, body
    return str(body['network']['id'])


def subnet(network_id: str, cidr: str) -> str:
    """Make a subnet whose DHCP server is not Neutron's."""
    status, body = call('POST', 'subnets', {'subnet': {
        'network_id': network_id, 'cidr': cidr, 'enable_dhcp': False,
        'ip_version': 6 if ':' in cidr else 4}})
    assert status == 201, body
    return str(body['subnet']['id'])
