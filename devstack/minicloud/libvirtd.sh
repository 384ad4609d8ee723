#!/bin/sh
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

# libvirtd with directories and a host name of its own: run it in namespaces
# that unshare(1) made. The machine's own libvirt does not notice.
# Usage: libvirtd.sh ETC RUN STATE
set -e
bind() {
  mkdir -p "$1" "$2"
  mount --bind "$2" "$1"
}
bind /etc/libvirt "$1"
bind /run/libvirt "$2"
bind /var/lib/libvirt "$3/lib"
bind /var/cache/libvirt "$3/cache"
bind /var/log/libvirt "$3/log"
# libvirtd wants Debian's user for guests to exist, though ours run as root.
account() {
  grep -q ^libvirt-qemu: "$1" && return
  { cat "$1"; echo "$2"; } >"$3/${1##*/}"
  mount --bind "$3/${1##*/}" "$1"
}
account /etc/passwd libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin "$3"
account /etc/group libvirt-qemu:x:64055: "$3"
# Nova takes the name of its hypervisor from here; the machine's may change.
hostname mini-libvirt
exec libvirtd
