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

"""Alert rules, dashboard and documentation, beside what is exported."""

from collections.abc import Iterator
import json
import re
from typing import Any

import yaml

from tests.functional.etc import test_etc
from tests.unit import base
from tests.unit import test_docs
from vmip_plugin import health
from vmip_plugin.inventory import api
from vmip_plugin import metrics
from vmip_plugin.reclaim import statistics

RULES = test_etc.ETC / 'prometheus/vmip-alerts.yaml'
RULES_TEST = test_etc.CHECKOUT / 'tests/functional/etc/vmip-alerts.test.yaml'
DASHBOARD = test_etc.ETC / 'grafana/vmip.json'
PAGE = test_etc.CHECKOUT / 'doc/source/monitoring.rst'

#: what Prometheus itself gives every sample
TARGET = {'job', 'instance'}
#: one sample of each that stands for a histogram or a counter's family
_SUFFIXES = ('_bucket', '_count', '_sum')


def exported() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Return (labels, daemons) of every metric, by name."""
    conf = base.new_conf(f'sqlite:///{base.template()}')
    conf.set_override('servers', ['a'], 'dhcp')
    inventory = api.Inventory(conf, 'test')
    found: dict[str, tuple[frozenset[str], set[str]]] = {}

    def add(daemon: str, name: str, kind: str, labels: Any) -> None:
        name += {'counter': '_total', 'info': '_info'}.get(kind, '')
        assert found.setdefault(name, (frozenset(labels), set()))[0] == (
            frozenset(labels)), name
        found[name][1].add(daemon)

    for daemon, registry in metrics.REGISTRIES.items():
        for metric in registry._collector_to_names:
            if isinstance(metric, health.Health | statistics.Statistics):
                continue
            add(daemon, metric._name, metric._type, metric._labelnames)
        collectors: list[Any] = [health.Health(
            daemon, [health.Pulse('x', 1)], {'x': lambda: None})]
        if daemon == metrics.RECLAIMER:
            told = statistics.Statistics(conf, inventory, lambda: True)
            told.look()
            collectors.append(told)
        for collector in collectors:
            for family in collector.collect():
                # those that tell of nothing yet know their labels, too
                labels = (family.samples[0].labels if family.samples
                          else family._labelnames)
                add(daemon, family.name, family.type, labels)
    inventory.database.engine.dispose()
    return {name: (labels, frozenset(daemons))
            for name, (labels, daemons) in found.items()}


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the metrics that PromQL names, each with its matchers' labels."""
    for name, matchers in re.findall(r'\b(vmip_\w+)(?:\{([^}]*)\})?',
                                     expression):
        yield name, set(re.findall(r'(\w+)\s*[=!]', re.sub(
            r'"[^"]*"', '""', matchers)))


def grouped(expression: str) -> set[str]:
    """Return the labels that PromQL groups or matches by."""
    return {label.strip() for labels in re.findall(
        r'\b(?:by|on|ignoring|without)\s*\(([^)]*)\)', expression)
        for label in labels.split(',')}


class MonitoringTestCase(test_etc.EtcTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.exported = exported()

    def check(self, expression: str) -> None:
        """See that all that an expression asks for is exported."""
        known = set(TARGET) | {'le'}
        for name, labels in selectors(expression):
            for suffix in _SUFFIXES:
                if name.endswith('_seconds' + suffix):
                    name = name.removesuffix(suffix)
            self.assertIn(name, self.exported, expression)
            self.assertLessEqual(
                labels, self.exported[name][0] | TARGET, expression)
            known |= self.exported[name][0]
        self.assertLessEqual(grouped(expression), known, expression)


class TestAlerts(MonitoringTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.rules = [rule for group in yaml.safe_load(
            RULES.read_text())['groups'] for rule in group['rules']]

    def test_rules(self) -> None:
        self.run_('promtool', 'check', 'rules', str(RULES))
        self.run_('promtool', 'test', 'rules', str(RULES_TEST))

    def test_a_wrong_one_is_seen(self) -> None:
        path = self.folder / 'rules.yaml'
        text = RULES.read_text()
        path.write_text(text.replace('> 60\n', '> > 60\n'))
        self.run_('promtool', 'check', 'rules', str(path), code=1)
        # one that fires too early fails its test
        path.write_text(text.replace('> 60\n', '> 59\n'))
        self.assertNotEqual(text, path.read_text())
        test = self.folder / 'test.yaml'
        test.write_text(RULES_TEST.read_text().replace(
            '../../../etc/prometheus/vmip-alerts.yaml', str(path)))
        self.assertIn('VmipHostEntriesLag', self.run_(
            'promtool', 'test', 'rules', str(test), code=1))

    def test_each_fires_in_its_test(self) -> None:
        tested = set(re.findall(r'alertname="(\w+)"', RULES_TEST.read_text()))
        self.assertEqual({rule['alert'] for rule in self.rules}, tested)

    def test_what_they_ask_for_is_exported(self) -> None:
        for rule in self.rules:
            self.check(rule['expr'])

    def test_each_says_what_to_do(self) -> None:
        sections = re.findall(r'^(.+)\n-+$', PAGE.read_text(), re.MULTILINE)
        named = set()
        for rule in self.rules:
            notes = rule['annotations']
            self.assertTrue(notes['summary'])
            section = re.search(r'Documentation: Monitoring, "(.+)"\.$',
                                notes['description'])
            self.assertIsNotNone(section, rule['alert'])
            assert section is not None
            self.assertIn(section[1], sections)
            # ... and the section names the alert
            text = PAGE.read_text().partition(f'\n{section[1]}\n---')[2]
            self.assertIn(f'``{rule["alert"]}``',
                          re.split(r'\n---', text.partition('\n')[2])[0])
            named.add(section[1])
        after = sections.index('A daemon is down')
        self.assertEqual(set(sections[after:]), named)
        self.assertEqual(
            {rule['alert'] for rule in self.rules},
            set(re.findall(r'``(Vmip\w+)``', PAGE.read_text())))


    def test_commands(self) -> None:
        commands = []
        for rule in self.rules:
            for quoted in re.findall('"(vmip-[^"]+)"', rule['annotations'][
                    'description']):
                commands.append(re.sub(r'\{\{.*?\}\}', 'one', quoted))
                test_docs.mention(commands[-1])
        self.assertIn('vmip-manage dhcp check --server one', commands)


class TestDashboard(MonitoringTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.dashboard = json.loads(DASHBOARD.read_text())
        self.panels = [panel for panel in self.dashboard['panels']
                       if panel['type'] != 'row']
        self.expressions = [target['expr'] for panel in self.panels
                            for target in panel['targets']]

    def test_what_it_asks_for_is_exported(self) -> None:
        self.assertGreater(len(self.expressions), 20)
        for expression in self.expressions:
            self.check(expression)

    def test_all_that_is_exported_is_in_it(self) -> None:
        text = ' '.join(self.expressions)
        self.assertEqual([], [name for name in self.exported
                              if name not in text])

    def test_promql(self) -> None:
        path = self.folder / 'rules.yaml'
        path.write_text(yaml.safe_dump({'groups': [{'name': 'x', 'rules': [
            {'record': f'x{number}', 'expr': expression.replace(
                '$__rate_interval', '5m').replace('$pool', '.*')}
            for number, expression in enumerate(self.expressions)]}]}))
        self.run_('promtool', 'check', 'rules', str(path))

    def test_data_source_is_asked_for(self) -> None:
        variables = {one['name']: one for one in
                     self.dashboard['templating']['list']}
        self.assertEqual('datasource', variables['datasource']['type'])
        for holder in (*self.panels, *(
                target for panel in self.panels
                for target in panel['targets']), variables['pool']):
            self.assertEqual(
                {'type': 'prometheus', 'uid': '${datasource}'},
                holder['datasource'])

    def test_places(self) -> None:
        """No panel is on another, and each has an id of its own."""
        panels = self.dashboard['panels']
        self.assertEqual(len(panels), len({one['id'] for one in panels}))
        taken = [(x, y) for place in (one['gridPos'] for one in panels)
                 for x in range(place['x'], place['x'] + place['w'])
                 for y in range(place['y'], place['y'] + place['h'])]
        self.assertEqual(len(taken), len(set(taken)))
        self.assertLess(max(x for x, _ in taken), 24)


class TestPage(MonitoringTestCase):

    def test_metrics(self) -> None:
        """The table has each metric, its labels and its daemons."""
        table = PAGE.read_text().partition('The metrics\n===')[2]
        told = {}
        for name, labels, daemons in re.findall(
                r'   \* - ``(vmip_\w+)``\n     -(.*)\n     - (.*)\n', table):
            told[name] = (
                frozenset(re.findall(r'``(\w+)``', labels)),
                frozenset(metrics.REGISTRIES) if daemons == 'all'
                else frozenset(f'vmip-{daemon}'
                               for daemon in daemons.split(', ')))
        self.assertEqual(self.exported, told)
