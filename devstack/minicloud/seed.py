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

"""Makes, where missing, what the cloud needs; runs with the venv's Python.

Usage: seed.py identity PASSWORDS NAME:PORT... | seed.py resources GUEST
"""

from collections.abc import Iterable
from pathlib import Path
import sys
import tempfile

import openstack
from openstack import connection

SERVICES = {
    'placement': ('placement', ''),
    'glance': ('image', ''),
    'neutron': ('network', ''),
    'nova': ('compute', '/v2.1'),
}
NETWORKS = {
    'provider1': ('physnet1', '192.0.2.'),
    'provider2': ('physnet2', '198.51.100.'),
}
FLAVORS = {
    'tiny': {'ram': 192, 'vcpus': 1, 'disk': 1},
    # Fits nowhere, to see a server without a valid host.
    'huge': {'ram': 4194304, 'vcpus': 1000, 'disk': 1},
}


def identity(cloud: connection.Connection, words: Path,
             ports: Iterable[str]) -> None:
    """Make users, roles, services and endpoints."""
    api = cloud.identity
    passwords = dict(line.split('=', 1)
                     for line in words.read_text().splitlines())
    roles = {role.name: role for role in api.roles()}
    projects = {project.name: project for project in api.projects()}
    users = {user.name: user for user in api.users()}

    def user(name: str, project: str, *names: str) -> None:
        if project not in projects:
            projects[project] = api.create_project(name=project,
                                                   domain_id='default')
        if name not in users:
            users[name] = api.create_user(
                name=name, password=passwords[name], domain_id='default',
                default_project_id=projects[project].id)
        for role in names:
            if role not in roles:
                roles[role] = api.create_role(name=role)
            api.assign_project_role_to_user(projects[project], users[name],
                                            roles[role])

    for name in (*SERVICES, 'vmip'):
        user(name, 'service', 'service', 'admin')
    for name in ('demo', 'demo2'):
        user(name, name, 'member', 'reader')

    have = {service.type for service in api.services()}
    for item in ports:
        name, port = item.split(':')
        kind, path = SERVICES[name]
        if kind in have:
            continue
        service = api.create_service(name=name, type=kind)
        for interface in ('public', 'internal'):
            api.create_endpoint(
                service_id=service.id, interface=interface,
                region_id='RegionOne', url=f'http://127.0.0.1:{port}{path}')


def resources(cloud: connection.Connection, guest: Path) -> None:
    """Make networks, flavours and the guest's image."""
    api = cloud.network
    for name, (physical, prefix) in NETWORKS.items():
        network = api.find_network(name) or api.create_network(
            name=name, shared=True, provider_network_type='flat',
            provider_physical_network=physical)
        if not api.find_subnet(f'{name}-v4'):
            api.create_subnet(
                name=f'{name}-v4', network_id=network.id, ip_version=4,
                cidr=f'{prefix}0/24', gateway_ip=f'{prefix}1',
                enable_dhcp=False, allocation_pools=[
                    {'start': f'{prefix}100', 'end': f'{prefix}199'}])
    for name, values in FLAVORS.items():
        if not cloud.compute.find_flavor(name):
            cloud.compute.create_flavor(name=name, **values)
    image(cloud, guest)


def image(cloud: connection.Connection, guest: Path) -> None:
    """Make the image, a new one if the guest was built anew."""
    digest = (guest / 'digest').read_text()
    old = cloud.image.find_image('guest')
    if old and old.properties.get('minicloud_digest') == digest:
        return
    for name in ('guest', 'guest-kernel', 'guest-ramdisk'):
        for stale in list(cloud.image.images(name=name)):
            cloud.image.delete_image(stale)

    def upload(name: str, path: Path, disk: str, container: str,
               **more: str) -> str:
        return cloud.image.create_image(
            name, filename=str(path), disk_format=disk,
            container_format=container, visibility='public', wait=True,
            validate_checksum=False, **more).id

    kernel = upload('guest-kernel', guest / 'vmlinuz', 'aki', 'aki')
    ramdisk = upload('guest-ramdisk', guest / 'initrd', 'ari', 'ari')
    # The guest lives in its memory: the disk is there because Nova wants one.
    with tempfile.NamedTemporaryFile() as disk:
        disk.truncate(1 << 20)
        upload('guest', Path(disk.name), 'raw', 'bare', kernel_id=kernel,
               ramdisk_id=ramdisk, minicloud_digest=digest,
               os_command_line=(guest / 'command_line').read_text())


def main() -> None:
    cloud = openstack.connect(cloud='admin')
    if sys.argv[1] == 'identity':
        identity(cloud, Path(sys.argv[2]), sys.argv[3:])
    else:
        resources(cloud, Path(sys.argv[2]))


if __name__ == '__main__':
    main()
