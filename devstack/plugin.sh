#!/bin/bash
#
# DevStack plugin of vmip-plugin
# ------------------------------
#
# Called by DevStack as "plugin.sh MODE [PHASE]"; README.md says how to use it.

# Save trace setting
_XTRACE_VMIP=$(set +o | grep xtrace)
set +o xtrace

VMIP_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VMIP_BIN_DIR=$(get_python_exec_prefix)
# The name of the DHCP server in vmip.conf
VMIP_DHCP_SERVER=vmip
VMIP_KEA_CONF=${VMIP_KEA_CONF:-/etc/kea/kea-dhcp4.conf}
VMIP_KEA_LEASES=${VMIP_KEA_LEASES:-/var/lib/kea/kea-leases4.csv}
VMIP_KEA_SOCKET=/run/kea/kea4-ctrl-socket
VMIP_KEA_SERVICE=kea-dhcp4-server

# Functions
# ---------

# Run vmip-manage with the configuration of this DevStack.
function vmip_manage {
    "$VMIP_BIN_DIR/vmip-manage" --config-file "$VMIP_CONF" "$@"
}

# Add a word to an option that is a list separated by commas.
# vmip_iniappend config-file section option word
function vmip_iniappend {
    local words
    words=$(iniget "$1" "$2" "$3")
    words=${words// /}
    words=${words%,}
    if [[ ",$words," != *",$4,"* ]]; then
        iniset "$1" "$2" "$3" "${words:+$words,}$4"
    fi
}

# check_vmip - Die early where it could not work
function check_vmip {
    if is_service_enabled q-svc q-agt && [[ "$Q_AGENT" != "openvswitch" ]]; then
        die $LINENO "vmip-plugin needs ML2/OVS here: set Q_AGENT=openvswitch and what README.md has beside it"
    fi
    if [[ "$VMIP_DHCP_DRIVER" != "dnsmasq" && "$VMIP_DHCP_DRIVER" != "kea" ]]; then
        die $LINENO "VMIP_DHCP_DRIVER has to be dnsmasq or kea, not $VMIP_DHCP_DRIVER"
    fi
    if ! is_ubuntu; then
        exit_distro_not_supported "the DHCP server of vmip-plugin"
    fi
}

# install_vmip_dhcp - The DHCP server, without a daemon of its package
function install_vmip_dhcp {
    if [[ "$VMIP_DHCP_DRIVER" == "kea" ]]; then
        install_package kea-dhcp4-server kea-admin
        stop_service $VMIP_KEA_SERVICE
    else
        install_package dnsmasq-base
    fi
}

# install_vmip - Into the Python environment of Nova and Neutron
function install_vmip {
    local extras=mysql
    if [[ "$VMIP_DHCP_DRIVER" == "kea" ]]; then
        extras+=,kea
    fi
    setup_develop "$VMIP_DIR" $extras
}

# create_vmip_accounts - Its user sees the ports and servers of all projects
function create_vmip_accounts {
    create_service_user vmip admin
}

# create_vmip_bridge - The wire between the guests and the DHCP server
function create_vmip_bridge {
    _neutron_ovs_base_add_bridge "$VMIP_BRIDGE"
    # The first address is the one by which the DHCP server names itself.
    local prefix=${VMIP_SUBNET_RANGE#*/}
    sudo ip address replace "$VMIP_DHCP_ADDRESS/$prefix" dev "$VMIP_BRIDGE"
    sudo ip address replace "$VMIP_GATEWAY/$prefix" dev "$VMIP_BRIDGE"
    sudo ip link set "$VMIP_BRIDGE" up
}

# configure_vmip - vmip.conf, and the list
function configure_vmip {
    sudo install -d -o "$STACK_USER" -m 750 "$VMIP_CONF_DIR" "$VMIP_STATE_PATH"
    # It has passwords.
    install -m 600 /dev/null "$VMIP_CONF"

    iniset "$VMIP_CONF" DEFAULT debug "$ENABLE_DEBUG_LOG_LEVEL"
    setup_logging "$VMIP_CONF"
    iniset_rpc_backend vmip "$VMIP_CONF"
    iniset "$VMIP_CONF" oslo_messaging_notifications transport_url "$(get_notification_url)"
    iniset "$VMIP_CONF" database connection "$(database_connection_url "$VMIP_DATABASE")"

    configure_keystoneauth "$VMIP_CONF" vmip cloud
    iniset "$VMIP_CONF" cloud region_name "$REGION_NAME"
    iniset "$VMIP_CONF" cloud cafile "$SSL_BUNDLE_FILE"

    iniset "$VMIP_CONF" reserve address_metadata_key "$VMIP_ADDRESS_KEY"
    iniset "$VMIP_CONF" reserve address_hint_key "$VMIP_ADDRESS_KEY"
    iniset "$VMIP_CONF" listener poison_dir "$VMIP_STATE_PATH/poison"
    iniset "$VMIP_CONF" agent interfaces "$VMIP_BRIDGE"
    iniset "$VMIP_CONF" agent store "$VMIP_STATE_PATH/agent.sqlite"

    if is_service_enabled vmip-dhcp; then
        iniset "$VMIP_CONF" dhcp servers $VMIP_DHCP_SERVER
        iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" driver "$VMIP_DHCP_DRIVER"
        iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" server_id "$VMIP_DHCP_ADDRESS"
        "configure_vmip_$VMIP_DHCP_DRIVER"
    fi
}

# configure_vmip_dnsmasq - Only who has a host entry gets an address
function configure_vmip_dnsmasq {
    local folder=$VMIP_STATE_PATH/dhcp
    rm -rf "$folder"
    mkdir -p "$folder/hosts"
    iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" hostsdir "$folder/hosts"
    iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" pid_file "$folder/dnsmasq.pid"
    iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" lease_file "$folder/leases"

    cat <<END >"$VMIP_CONF_DIR/dnsmasq.conf"
# Written by DevStack.
# no DNS, and no addresses but on this bridge
port=0
interface=$VMIP_BRIDGE
bind-interfaces
except-interface=lo
# as whom vmip-listener runs, which writes the entries and sends a signal
user=$STACK_USER
pid-file=$folder/dnsmasq.pid
dhcp-leasefile=$folder/leases
dhcp-hostsdir=$folder/hosts
dhcp-range=${VMIP_SUBNET_RANGE%/*},static,$(cidr2netmask "${VMIP_SUBNET_RANGE#*/}"),$VMIP_LEASE_TIME
dhcp-option=option:router,$VMIP_GATEWAY
dhcp-authoritative
dhcp-ignore=tag:!known
dhcp-ignore-clid
log-dhcp
log-facility=-
END
}

# configure_vmip_kea - Host entries are in a database of DevStack's own server
function configure_vmip_kea {
    iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" control $VMIP_KEA_SOCKET
    iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" subnets "$VMIP_SUBNET_RANGE=1"
    iniset "$VMIP_CONF" "dhcp:$VMIP_DHCP_SERVER" hosts_database "$(database_connection_url "$VMIP_KEA_DATABASE")"

    recreate_database "$VMIP_KEA_DATABASE"
    sudo kea-admin db-init mysql -h "$MYSQL_HOST" -u "$DATABASE_USER" \
        -p "$DATABASE_PASSWORD" -n "$VMIP_KEA_DATABASE"

    local library
    library=$(dpkg -L kea-common | grep -m 1 '/libdhcp_lease_cmds\.so$')
    if [[ ! -e "$VMIP_KEA_CONF.before-vmip" ]]; then
        sudo cp -p "$VMIP_KEA_CONF" "$VMIP_KEA_CONF.before-vmip"
    fi
    sudo tee "$VMIP_KEA_CONF" >/dev/null <<END
{ "Dhcp4": {
    "interfaces-config": {
        "interfaces": [ "$VMIP_BRIDGE/$VMIP_DHCP_ADDRESS" ] },
    "control-socket": { "socket-type": "unix",
                        "socket-name": "$VMIP_KEA_SOCKET" },
    "lease-database": { "type": "memfile",
                        "name": "$VMIP_KEA_LEASES" },
    "hosts-database": { "type": "mysql", "name": "$VMIP_KEA_DATABASE",
                        "host": "$MYSQL_HOST", "user": "$DATABASE_USER",
                        "password": "$DATABASE_PASSWORD",
                        "max-reconnect-tries": 1000000,
                        "reconnect-wait-time": 1000 },
    "hooks-libraries": [ { "library": "$library" } ],
    "host-reservation-identifiers": [ "hw-address" ],
    "match-client-id": false,
    "authoritative": true,
    "client-classes": [
        { "name": "DROP",
          "test": "pkt4.msgtype == 3 and not member('KNOWN')" } ],
    "valid-lifetime": $VMIP_LEASE_TIME,
    "subnet4": [
        { "id": 1, "subnet": "$VMIP_SUBNET_RANGE", "pools": [],
          "interface": "$VMIP_BRIDGE",
          "option-data": [ { "name": "routers", "data": "$VMIP_GATEWAY" } ],
          "reservations-in-subnet": true } ],
    "loggers": [
        { "name": "kea-dhcp4", "severity": "INFO",
          "output_options": [ { "output": "stdout" } ] } ] } }
END
    # Its socket is for Kea's group, to which vmip's user belongs.
    sudo mkdir -p "$SYSTEMD_DIR/$VMIP_KEA_SERVICE.service.d"
    iniset -sudo "$SYSTEMD_DIR/$VMIP_KEA_SERVICE.service.d/vmip.conf" Service UMask 0007
    add_user_to_group "$STACK_USER" _kea
    $SYSTEMCTL daemon-reload
}

# configure_vmip_nova - The filter in the paste file, which DevStack has copied
function configure_vmip_nova {
    vmip_manage enable "$NOVA_API_PASTE_INI"
}

# configure_vmip_neutron - The IPAM driver, and the provider network's wire
function configure_vmip_neutron {
    iniset "$NEUTRON_CONF" DEFAULT ipam_driver vmip
    vmip_iniappend "$NEUTRON_CONF" DEFAULT service_plugins vmip
    iniset "$NEUTRON_CONF" oslo_messaging_notifications driver messagingv2
    iniset "$NEUTRON_CONF" oslo_messaging_notifications transport_url "$(get_notification_url)"
    vmip_iniappend "/$Q_PLUGIN_CONF_FILE" ml2_type_flat flat_networks "$VMIP_PHYSICAL_NETWORK"
    if [[ "$VMIP_STRICT" == "True" ]]; then
        vmip_iniappend "/$Q_PLUGIN_CONF_FILE" ml2 mechanism_drivers vmip
    fi
}

# start_vmip_dhcp
function start_vmip_dhcp {
    if [[ "$VMIP_DHCP_DRIVER" == "kea" ]]; then
        if is_service_enabled vmip-dhcp; then
            restart_service $VMIP_KEA_SERVICE
        fi
    else
        # It needs root only until its sockets are open.
        run_process vmip-dhcp "$(type -P dnsmasq) --keep-in-foreground --conf-file=$VMIP_CONF_DIR/dnsmasq.conf" "" root
    fi
}

# start_vmip
function start_vmip {
    # run_process leaves in a unit what is not its own.
    if is_service_enabled vmip-agent; then
        sudo mkdir -p "$SYSTEMD_DIR"
        iniset -sudo "$SYSTEMD_DIR/devstack@vmip-agent.service" Service AmbientCapabilities CAP_NET_RAW
    fi
    local service
    for service in vmip-listener vmip-reclaimer vmip-agent; do
        run_process $service "$VMIP_BIN_DIR/$service --config-file $VMIP_CONF"
    done
}

# create_vmip_network - The network, its pool, and a look at the whole
function create_vmip_network {
    local cloud=(--os-cloud devstack-admin --os-region "$REGION_NAME")
    openstack "${cloud[@]}" network create "$VMIP_NETWORK" --share \
        --provider-network-type flat \
        --provider-physical-network "$VMIP_PHYSICAL_NETWORK"
    local subnet_id
    subnet_id=$(openstack "${cloud[@]}" subnet create "$VMIP_NETWORK-v4" \
        --network "$VMIP_NETWORK" --no-dhcp \
        --subnet-range "$VMIP_SUBNET_RANGE" --gateway "$VMIP_GATEWAY" \
        --allocation-pool "$VMIP_ALLOCATION_POOL" -f value -c id)
    die_if_not_set $LINENO subnet_id "The subnet of $VMIP_NETWORK was not made"
    local server=()
    if is_service_enabled vmip-dhcp; then
        server=(--dhcp-server "$VMIP_DHCP_SERVER")
    fi
    vmip_manage pool create "$VMIP_NETWORK" --subnet "$subnet_id" \
        --allocator "$VMIP_ALLOCATOR" "${server[@]}"
    test_with_retry "$VMIP_BIN_DIR/vmip-manage --config-file $VMIP_CONF dhcp check" \
        "the DHCP server of vmip is not well" 30
}

# stop_vmip - Guests may stay; they find no DHCP server and no bridge
function stop_vmip {
    local service
    for service in vmip-agent vmip-reclaimer vmip-listener vmip-dhcp; do
        stop_process $service
    done
    if [[ "$VMIP_DHCP_DRIVER" == "kea" ]] && is_package_installed kea-dhcp4-server; then
        stop_service $VMIP_KEA_SERVICE
    fi
    if type -P ovs-vsctl >/dev/null; then
        sudo ovs-vsctl --if-exists del-br "$VMIP_BRIDGE"
    fi
}

# cleanup_vmip - What DevStack does not remove itself
function cleanup_vmip {
    sudo rm -rf "$VMIP_CONF_DIR" "$VMIP_STATE_PATH"
    if [[ -e "$VMIP_KEA_CONF.before-vmip" ]]; then
        sudo mv "$VMIP_KEA_CONF.before-vmip" "$VMIP_KEA_CONF"
        sudo rm -f "$SYSTEMD_DIR/$VMIP_KEA_SERVICE.service.d/vmip.conf" \
            "$VMIP_KEA_LEASES"
        $SYSTEMCTL daemon-reload
    fi
}

# Dispatch
# --------

if is_service_enabled vmip-dhcp vmip-listener vmip-reclaimer vmip-agent; then
    case "$1 $2" in
        "stack pre-install")
            check_vmip
            if is_service_enabled vmip-dhcp; then
                echo_summary "Installing the DHCP server of vmip"
                install_vmip_dhcp
            fi
            ;;
        "stack install")
            echo_summary "Installing vmip"
            install_vmip
            ;;
        "stack post-config")
            echo_summary "Configuring vmip"
            # The L2 agent does not start without the bridge.
            if is_service_enabled q-agt vmip-dhcp vmip-agent; then
                create_vmip_bridge
            fi
            if is_service_enabled q-agt; then
                vmip_iniappend "/$Q_PLUGIN_CONF_FILE" ovs bridge_mappings "$VMIP_PHYSICAL_NETWORK:$VMIP_BRIDGE"
            fi
            configure_vmip
            if is_service_enabled $DATABASE_BACKENDS && is_service_enabled vmip-listener; then
                create_vmip_accounts
                recreate_database "$VMIP_DATABASE"
                vmip_manage db upgrade
            fi
            if is_service_enabled n-api; then
                configure_vmip_nova
            fi
            if is_service_enabled q-svc neutron-api; then
                configure_vmip_neutron
            fi
            ;;
        "stack extra")
            echo_summary "Starting vmip"
            start_vmip_dhcp
            start_vmip
            if is_service_enabled q-svc neutron-api; then
                create_vmip_network
            fi
            ;;
        "unstack "*)
            stop_vmip
            ;;
        "clean "*)
            cleanup_vmip
            ;;
    esac
fi

# Restore xtrace
$_XTRACE_VMIP
