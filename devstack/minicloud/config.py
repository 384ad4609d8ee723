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

"""The configuration files: templates, and on top what an operator adds."""

from pathlib import Path
import re

from minicloud import process
from minicloud import settings

TEMPLATES = settings.HERE / 'templates'
OPERATOR = settings.HERE / 'operator'

# Template, and the file under etc/ that it becomes.
FILES = {
    'keystone.conf': 'keystone/keystone.conf',
    'placement.conf': 'placement/placement.conf',
    'glance-api.conf': 'glance/glance-api.conf',
    'neutron.conf': 'neutron/neutron.conf',
    'ml2_conf.ini': 'neutron/ml2_conf.ini',
    'nova.conf': 'nova/nova.conf',
    'nova-cell1.conf': 'nova/nova-cell1.conf',
    'nova-compute.conf': 'nova/nova-compute.conf',
    'nova-compute-libvirt.conf': 'nova/nova-compute-libvirt.conf',
    'nova-compute-fake.conf': 'nova/nova-compute-fake.conf',
    'nova-compute-fake2.conf': 'nova/nova-compute-fake2.conf',
    'libvirtd.conf': 'libvirt/libvirtd.conf',
    'qemu.conf': 'libvirt/qemu.conf',
    'rabbitmq.conf': 'rabbitmq/rabbitmq.conf',
    'mariadb.sql': 'mariadb/init.sql',
    'clouds.yaml': '../clouds.yaml',
}
OPERATOR_FILES = ('neutron.conf', 'nova.conf')
RC = ('admin', 'demo', 'demo2')

_PLACEHOLDER = re.compile(r'\{([a-z0-9_]+)\}')


def render(path: Path, values: dict[str, str]) -> str:
    """Return a file with its placeholders filled in."""
    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise process.Failure(
                f'{path}: unknown placeholder {match[0]}') from None

    return _PLACEHOLDER.sub(value, path.read_text())


def _more(name: str) -> str:
    """Return what was put down to end a file with, as a test does it."""
    path = settings.MORE / name
    return f'\n# From more/{name}:\n\n{path.read_text()}' if (
        path.exists()) else ''


def _paste(values: dict[str, str], vmip: bool) -> str:
    """Return nova-api's pipelines: the stock file, with the filter in it.

    Or the file of a test that plays the operator.
    """
    path = settings.MORE / 'api-paste.ini'
    if path.exists():
        return path.read_text()
    text = (settings.VENV / 'etc/nova/api-paste.ini').read_text()
    if not vmip:
        return text
    # In both pipelines of Keystone, once it is known who asks.
    text, count = re.subn(r'^(keystone = .* keystonecontext) ', r'\1 vmip ',
                          text, flags=re.MULTILINE)
    if count != 2:
        raise process.Failure('the stock api-paste.ini of Nova has '
                              f'{count} pipelines of Keystone, not 2')
    return text + '\n' + render(OPERATOR / 'api-paste.ini', values)


def _strict(text: str) -> str:
    """Return ml2_conf.ini with the plugin's mechanism driver as well."""
    text, count = re.subn(r'^(mechanism_drivers = .+)$', r'\1,vmip', text,
                          flags=re.MULTILINE)
    if count != 1:
        raise process.Failure(f'{count} lines of ml2_conf.ini, not one, name '
                              'the mechanism drivers')
    return text


def write(vmip: bool, virt_type: str, strict: bool = False) -> None:
    """Write every configuration file.

    :param vmip: with the plugin, as an operator would put it in.
    :param strict: in strict mode.
    """
    values = settings.values() | {'virt_type': virt_type}
    for template, target in FILES.items():
        text = render(TEMPLATES / template, values)
        if vmip and template in OPERATOR_FILES:
            path = OPERATOR / template
            text += (f'\n# From operator/{template}:\n\n'
                     + render(path, values))
        if strict and template == 'ml2_conf.ini':
            text = _strict(text)
        settings.write_private(settings.ETC / target, text + _more(template))
    settings.write_private(settings.ETC / 'nova/api-paste.ini',
                           _paste(values, vmip))
    if vmip:
        settings.write_private(settings.VMIP_CONF,
                               render(OPERATOR / 'vmip.conf', values)
                               + _more('vmip.conf'))
    for user in RC:
        text = render(TEMPLATES / 'rc', values | {
            'user': user, 'password': values[f'password_{user}']})
        settings.write_private(settings.STATE / f'{user}rc', text)
