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


"""The files for Kolla, rendered as kolla-build and Ansible render them.

Kolla itself is not here: its templates' blocks and macros that the override
uses are copied in.
"""

import pathlib

import jinja2
from jinja2 import nativetypes
from jinja2 import sandbox
import testtools
import yaml

from tests.functional.deploy import test_ansible
from tests.unit import test_docs

FOLDER = pathlib.Path(__file__).parents[3] / 'deploy' / 'kolla'

#: of kolla/docker, cut to what matters
PARENTS = {
    'macros.j2': (
        '{% macro install_pip(packages) %}python3 -m pip install '
        '-c /requirements/upper-constraints.txt {{ packages | join(" ") }}'
        '{% endmacro %}'),
    **{image: (
        '{% import "macros.j2" as macros with context %}'
        f'FROM {image}\n'
        f'{{% block {block} %}}{{% endblock %}}\n'
        '{% block footer %}{% endblock %}\nUSER last\n')
       for image, block in (('nova-api', 'nova_api_footer'),
                            ('neutron-server', 'neutron_server_footer'),
                            ('nova-compute', 'nova_compute_footer'))}}


class TestKolla(testtools.TestCase):

    def render(self, image: str) -> str:
        """Render an image's Dockerfile as kolla-build does."""
        parents = sandbox.SandboxedEnvironment(
            loader=jinja2.DictLoader(PARENTS))
        # the override has no loader: it cannot import
        override = sandbox.SandboxedEnvironment(
            undefined=jinja2.StrictUndefined, loader=jinja2.DictLoader({
                'o.j2': (FOLDER / 'template-override.j2').read_text()}))
        return override.get_template('o.j2').render(
            parent_template=parents.get_template(image))

    def test_images(self) -> None:
        pip = ("\nRUN python3 -m pip install -c "
               "/requirements/upper-constraints.txt 'vmip-plugin[mysql]'\n")
        nova, neutron, other = map(self.render, (
            'nova-api', 'neutron-server', 'nova-compute'))
        self.assertIn(pip, nova)
        self.assertIn(pip, neutron)
        self.assertIn('vmip-manage enable /etc/nova/api-paste.ini\n', nova)
        self.assertNotIn('enable', neutron)
        self.assertNotIn('vmip', other)
        for text in nova, neutron:
            self.assertLess(text.index('pip install'), text.index('USER'))
        [command] = test_docs.commands(
            next(line.strip(' &') for line in nova.splitlines()
                 if 'vmip-manage' in line))
        test_docs.parse(command)

    def test_configuration(self) -> None:
        """The same as the role has for Nova and Neutron."""
        templates = test_ansible.ROOT / 'deploy/ansible/roles/vmip/templates'
        for name in 'nova', 'neutron':
            text = (FOLDER / f'config/{name}.conf').read_text()
            self.assertEqual(
                (templates / f'{name}.conf.j2').read_text(),
                f'# {{{{ ansible_managed }}}}\n{text}')

    def test_globals(self) -> None:
        found = yaml.safe_load((FOLDER / 'globals.yml').read_text())
        for name, value in found.items():
            self.assertTrue(name.endswith('_extra_volumes'))
            [before, volume] = nativetypes.NativeEnvironment(
            ).from_string(value).render(
                nova_extra_volumes=['site'], neutron_extra_volumes=['site'])
            self.assertEqual('site', before)
            source, target, mode = volume.split(':')
            self.assertEqual(('/etc/vmip', 'ro'), (target, mode))
            self.assertIn(source, (FOLDER / 'README.md').read_text())

    def test_host_vars(self) -> None:
        """Only what the role has is set."""
        known = yaml.safe_load((
            test_ansible.ROOT
            / 'deploy/ansible/roles/vmip/defaults/main.yml').read_text())
        found = yaml.safe_load((FOLDER / 'host_vars.yml').read_text())
        self.assertEqual(set(), set(found) - set(known))
        for group, options in found['vmip_config'].items():
            for name in options:
                test_docs.option(group, name)
