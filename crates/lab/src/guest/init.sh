#!/bin/busybox sh
# The first and only program of a guest: configures eth0 as told in /config, says on the console what it
# got, answers on TCP port 7, and runs commands that come in on the console.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
. /config
hostname "$NAME"
stty -F /dev/ttyS0 raw -echo
for module in /modules/*.ko; do insmod "$module" || echo "hextet-guest: failed to load $module"; done
echo "hextet-guest: booted"

ip link set lo up
ip link set eth0 up
for address in $ADDRESSES; do ip addr add "$address" dev eth0; done
for gateway in $GATEWAYS; do
    case $gateway in
        *:*) ip -6 route add default via "$gateway" dev eth0 ;;
        *) ip route add default via "$gateway" dev eth0 onlink ;;
    esac
done
[ "$DHCPV4" = yes ] && udhcpc -i eth0 -s /bound.sh -O staticroutes -O mtu -t 5 -T 1 -A 2 -f >/dev/null 2>&1 &
nc -ll -p 7 -e /answer.sh &

# Says each family's address once, and when there is one of each wanted family.
(
    missing=$FAMILIES
    while [ -n "$missing" ]; do
        left=
        for family in $missing; do
            address=$(ip -o -"$family" addr show dev eth0 scope global | grep -v tentative |
                sed -n 's/.* inet6* \([^ /]*\).*/\1/p' | head -n 1)
            if [ -n "$address" ]; then echo "hextet-guest: v$family $address"; else left="$left $family"; fi
        done
        missing=${left# }
        [ -n "$missing" ] && usleep 100000
    done
    echo "hextet-guest: ready"
) &

# A line on the console: a number, then a command for the shell.
while read -r number command; do
    echo "hextet-guest: run $number"
    sh -c "$command" </dev/null 2>&1
    status=$?
    echo
    echo "hextet-guest: done $number $status"
done </dev/ttyS0
poweroff -f
