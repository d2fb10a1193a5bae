#!/bin/busybox sh
# What udhcpc calls: puts a lease on the interface. Classless routes replace the router (RFC 3442); a
# gateway need not be in the subnet.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
[ -n "$mtu" ] && ip link set dev "$interface" mtu "$mtu"
[ "$1" = bound ] && ip -4 addr flush dev "$interface"
ip addr replace "$ip/$mask" dev "$interface"
routes=$staticroutes
[ -n "$routes" ] || for gateway in $router; do routes="$routes 0.0.0.0/0 $gateway"; done
set -- $routes
while [ $# -ge 2 ]; do
    if [ "$2" = 0.0.0.0 ]; then
        ip route replace "$1" dev "$interface"
    else
        ip route replace "$1" via "$2" dev "$interface" onlink
    fi
    shift 2
done
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
