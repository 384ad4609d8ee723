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

"""A listener in a process of its own, to be killed in the middle of a batch.

Prints how many events its handler got, and handles none of them.
"""

from collections.abc import Sequence
import sys
import time
from typing import Any

from oslo_config import cfg
from oslo_messaging import conffixture

from vmip_plugin import conf as vmip_conf
from vmip_plugin.notifications import event
from vmip_plugin.notifications import listener


def config(url: str, **options: Any) -> cfg.ConfigOpts:
    """Return a configuration for one broker, with options of [listener]."""
    conf = vmip_conf.new()
    conf([], default_config_files=[], default_config_dirs=[])
    conffixture.ConfFixture(conf).transport_url = url
    for name, value in {'poison_limit': 0, **options}.items():
        conf.set_override(name, value, 'listener')
    return conf


class Victim:

    def handle(self, events: Sequence[event.Event]) -> None:
        print(len(events), flush=True)
        time.sleep(3600)


def main() -> None:
    conf = config(sys.argv[1])
    target = listener.Listener(conf, listener.get_transport(conf), Victim())
    target.start()
    print('ready', flush=True)
    target.wait()


if __name__ == '__main__':
    main()
