#!/bin/sh
# One of several dnsmasqs on a machine, in a network namespace of its own:
#   namespace.sh NAME ADDRESS/PREFIX BRIDGE
# A NAME has letters, digits and _, no digit first (D-Bus), 15 at most.
# Its interface there has the name of the bridge, so that all of them may have
# one configuration: the one above without the lines that are set here.
set -eu
name=$1 address=$2 bridge=$3
conf=${CONF:-/etc/vmip/dnsmasq.conf}
folder=${FOLDER:-/var/lib/vmip/$name}

ip netns add "$name" 2>/dev/null || true
if ! ip link show "$name" >/dev/null 2>&1; then
    ip link add "$name" type veth peer name "$bridge" netns "$name"
fi
ip link set "$name" master "$bridge" up
ip -n "$name" address replace "$address" dev "$bridge"
ip -n "$name" link set "$bridge" up

mkdir -p "$folder/hosts"
exec ip netns exec "$name" dnsmasq --keep-in-foreground --conf-file="$conf" \
    --dhcp-hostsdir="$folder/hosts" --dhcp-leasefile="$folder/leases" \
    --pid-file="$folder/pid" --enable-dbus="uk.org.thekelleys.dnsmasq.$name"
