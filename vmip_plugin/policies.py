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

"""Who may do what: oslo.policy rules that an operator can change."""

from oslo_config import cfg
from oslo_policy import policy

#: ask for an address of one's own choice
REQUEST_ADDRESS = 'vmip:request_address'

#: have addresses reserved on networks that the project may not use
USE_ANY_NETWORK = 'vmip:use_any_network'

_RULES = [
    policy.DocumentedRuleDefault(
        name=REQUEST_ADDRESS,
        check_str='role:admin or '
                  '(role:member and project_id:%(project_id)s)',
        description='Ask for an address in the metadata or in a scheduler '
                    'hint of a new server. Nobody can unless the keys '
                    '[reserve] address_metadata_key or address_hint_key are '
                    'set in vmip.conf. The target has project_id and '
                    'user_id, those of the server.',
        operations=[{'method': 'POST', 'path': '/servers'}],
        scope_types=['project']),
    policy.DocumentedRuleDefault(
        name=USE_ANY_NETWORK,
        check_str='role:admin',
        description='Have addresses reserved in advance also on networks '
                    'that are neither the project\'s nor shared with it. '
                    'For those of whom Nova and Neutron take any network.',
        operations=[{'method': 'POST', 'path': '/servers'}],
        scope_types=['project']),
]


def list_rules() -> list[policy.RuleDefault]:
    """Return every rule, for oslopolicy-sample-generator."""
    return _RULES


def enforcer(conf: cfg.ConfigOpts) -> policy.Enforcer:
    """Return an enforcer of our own, never a host service's.

    :param conf: gets oslo.policy's group ``[oslo_policy]``; the policy file
        is looked for beside the configuration file.
    """
    made = policy.Enforcer(conf)
    made.register_defaults(_RULES)
    return made
