#!/bin/bash
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


# A DevStack of which only the names are real: every function of it writes
# down how it was called, and some do in a folder what they are there for.
#
#   stub.sh CHECKOUT FOLDER "MODE PHASE"...
#
# runs the plugin as stack.sh, unstack.sh and clean.sh do. Commands that are
# not in FOLDER/bin, and functions that DevStack does not have, are errors.

set -o errexit
trap 'echo "an error in line $LINENO of ${BASH_SOURCE[0]}" >&2; exit 1' ERR

CHECKOUT=$1
FOLDER=$2
shift 2
HERE=$(dirname "${BASH_SOURCE[0]}")
PATH=$FOLDER/bin

called() {
    printf '%q ' "$@" >>"$FOLDER/calls"
    echo >>"$FOLDER/calls"
}

command_not_found_handle() {
    echo "unknown: $1" | tee -a "$FOLDER/unknown" >&2
    exit 127
}

while read -r name; do
    [[ "$name" == \#* ]] || eval "function $name { called $name \"\$@\"; }"
done <"$HERE/functions.txt"

die() {
    echo "died: ${*:2}" >&2
    exit 1
}
die_if_not_set() {
    [[ -n "${!2}" ]] || die "$1" "$3"
}
exit_distro_not_supported() {
    die 0 "$@"
}
iniset() {
    if [[ "$1" == -sudo ]]; then
        shift
    fi
    "$PYTHON" -I -S "$HERE/ini.py" set "$1" "$2" "$3" "$4"
}
iniget() {
    "$PYTHON" -I -S "$HERE/ini.py" get "$1" "$2" "$3"
}
trueorfalse() {
    echo "${!2:-$1}"
}
is_service_enabled() {
    local service
    for service in "$@"; do
        [[ ,$ENABLED_SERVICES, != *,$service,* ]] || return 0
    done
    return 1
}
enable_service() {
    local service
    for service in "$@"; do
        [[ ,$DISABLED_SERVICES, == *,$service,* ]] \
            || ENABLED_SERVICES+=,$service
    done
}
is_ubuntu() {
    [[ "$DISTRO" == bookworm || "$DISTRO" == noble ]]
}
is_package_installed() {
    called is_package_installed "$@"
}
get_python_exec_prefix() {
    echo "$FOLDER/venv/bin"
}
database_connection_url() {
    echo "sqlite:///$FOLDER/$1.sqlite"
}
get_notification_url() {
    echo 'rabbit://stackrabbit:secret@192.0.2.250:5672/'
}
iniset_rpc_backend() {
    iniset "$2" DEFAULT transport_url "$(get_notification_url)"
}
configure_keystoneauth() {
    iniset "$1" "$3" auth_type password
    iniset "$1" "$3" username "$2"
}
cidr2netmask() {
    "$PYTHON" -I -S -c 'import ipaddress, sys; print(
        ipaddress.ip_network("0.0.0.0/" + sys.argv[1]).netmask)' "$1"
}
run_process() {
    called run_process "$@"
    # what the pitfalls are for which DevStack looks
    [[ "$2" == /* && "$2" != *sudo* ]]
}
test_with_retry() {
    called test_with_retry "$@"
    $1
}

# as local.conf has them, or DevStack's own
DEST=$FOLDER
DATA_DIR=$FOLDER/data
SYSTEMD_DIR=$FOLDER/systemd
SYSTEMCTL='sudo systemctl'
STACK_USER=${STACK_USER:-root}
DISTRO=${DISTRO:-bookworm}
REGION_NAME=RegionOne
SSL_BUNDLE_FILE=$DATA_DIR/ca-bundle.pem
ENABLE_DEBUG_LOG_LEVEL=True
DATABASE_BACKENDS=mysql
DATABASE_USER=root
DATABASE_PASSWORD=secret
MYSQL_HOST=127.0.0.1
Q_AGENT=${Q_AGENT-openvswitch}
ENABLED_SERVICES=${ENABLED_SERVICES-mysql,rabbit,key,n-api,n-cpu,q-svc,q-agt,q-dhcp,neutron-api}
NEUTRON_CONF=$FOLDER/etc/neutron/neutron.conf
# DevStack has it without the first slash
Q_PLUGIN_CONF_FILE=${FOLDER#/}/etc/neutron/ml2_conf.ini
NOVA_API_PASTE_INI=$FOLDER/etc/nova/api-paste.ini
VMIP_CONF_DIR=$FOLDER/etc/vmip
VMIP_KEA_CONF=$FOLDER/etc/kea/kea-dhcp4.conf
VMIP_KEA_LEASES=$FOLDER/kea-leases4.csv

source "$CHECKOUT/devstack/override-defaults"
source "$CHECKOUT/devstack/settings"
for phase in "$@"; do
    called "== $phase"
    # shellcheck disable=SC2086
    source "$CHECKOUT/devstack/plugin.sh" $phase
done
# what override-defaults is there for
echo "$NOVA_NOTIFICATION_FORMAT" >"$FOLDER/notification_format"
