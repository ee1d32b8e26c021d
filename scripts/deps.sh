#!/bin/sh
# Installs what this Debian machine lacks, and says so. Nothing is done, and nothing said, if all is there.
#
#   scripts/deps.sh build    what the engine is built with and runs with
#   scripts/deps.sh test     also what tests, demo and most benches use
#   scripts/deps.sh bench    also the programs that the bench ladder compares with
#   scripts/deps.sh fuzz     what the fuzzer is built with (libFuzzer is C++)
#
# The packages' services are not started: a policy-rc.d that forbids it is put in place for the length of the installation
# (unless the machine has one of its own), and taken away again.
set -eu

build="gcc libc6-dev pkg-config libnftnl-dev libmnl-dev nftables iproute2"
test="iptables redis-server redis-tools nginx sockperf tcpdump procps iputils-ping curl util-linux"
bench="haproxy libnginx-mod-stream socat"

case "${1-}" in
build) wanted=$build ;;
test) wanted="$build $test" ;;
bench) wanted="$build $test $bench" ;;
fuzz) wanted="$build g++" ;;
*)
    echo "usage: scripts/deps.sh build|test|bench|fuzz" >&2
    exit 2
    ;;
esac

if ! command -v cargo >/dev/null; then
    echo "cargo is missing. Install Rust 1.91 or newer, for example by https://rustup.rs, then run make again." >&2
    exit 1
fi

missing=
for package in $wanted; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "this is no Debian machine; install what corresponds to these packages:$missing" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing; install them as root:" >&2
    echo "    apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
echo "installing with apt-get (services are not started):$missing"
export DEBIAN_FRONTEND=noninteractive
# The lists of a fresh machine may be missing or too old: fetched anew only if it does not work without.
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing >/dev/null 2>&1 || {
    echo "fetching the package lists first (apt-get update)"
    apt-get update -q
    apt-get install -y -q --no-install-recommends $missing
}
case "$missing" in
*redis-server* | *nginx* | *haproxy*)
    echo "note: Debian's packages enable redis-server, nginx and haproxy for the next start of this machine;"
    echo "      'systemctl disable redis-server nginx haproxy' if they are wanted for tests and benches only"
    ;;
esac
