#!/bin/sh
# Installs what the tests, the demo and the benchmarks use besides Go, from the Debian or Ubuntu archive, and says what
# it does. It never fails for a missing optional package: it says what is missing, and the tests that need it skip and
# say so too.
#
#   deps.sh          install everything
#   deps.sh demo     install what `make demo` needs
#   deps.sh auto     likewise, but do not try again what could not be installed before
#   deps.sh check    install nothing, only say what is missing
set -u
cd "$(dirname "$0")/.."
mode=${1:-all}
log=.cache/deps.log
mkdir -p .cache

# command  package  what for
needs='
busybox busybox-static the root filesystem of the demo and of the runtime suites
'
[ "$mode" = demo ] || needs="$needs"'
runc runc the peer that tests and benchmarks compare with
crun crun the peer that benchmarks compare with
podman podman the suite of real clients
conmon conmon the suite of real clients
containerd containerd the suite of real clients (ctr)
ctr containerd the suite of real clients (ctr)
dockerd docker.io the suite of real clients
skopeo skopeo images written by another tool
umoci umoci images written by another tool
buildah buildah images written by another tool
docker-registry docker-registry registries of another make
nginx nginx-light the benchmark of the registry
htpasswd apache2-utils password files written by another tool
chromium chromium the page of the registry in a browser
xz xz-utils layers compressed by another tool
zstd zstd layers compressed by another tool
setcap libcap2-bin files with capabilities in layers
setfattr attr files with extended attributes in layers
debootstrap debootstrap the Debian image of the suites
newuidmap uidmap containers without privileges
criu criu checkpoint and restore
qemu-system-x86_64 qemu-system-x86 tests in virtual machines
qemu-system-aarch64 qemu-system-arm tests in virtual machines of arm64
apparmor_parser apparmor AppArmor profiles in virtual machines
strace strace tests that count system calls
hyperfine hyperfine benchmarks
gcc gcc the floor of the benchmarks, a static C program
jq jq checks of JSON output
ip iproute2 network tests
mkfs.ext4 e2fsprogs tests on a full disk
'

have() {
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]
}

missing_packages() {
    echo "$needs" | while read -r cmd pkg _; do
        [ -z "$cmd" ] || have "$cmd" || echo "$pkg"
    done | sort -u
    [ "$mode" != demo ] || return 0
    [ -x /usr/lib/cni/bridge ] || echo containernetworking-plugins
    ls /usr/lib/*/libc.a >/dev/null 2>&1 || echo libc6-dev
}

# Services of the packages must not start: the suites run their own.
without_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    "$@"
    status=$?
    rm -f $policy
    return $status
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 "$@" >>$log 2>&1
}

install_packages() {
    # shellcheck disable=SC2086 # a list of package names
    if without_services apt install --no-install-recommends $1; then
        return
    fi
    for pkg in $1; do # one that a distribution does not have must not keep the others away
        without_services apt install --no-install-recommends "$pkg" || echo "deps: $pkg could not be installed (see $log)"
    done
}

# The dynamically linked busybox conflicts with the static one, so it is unpacked beside it.
dynamic_busybox() {
    [ ! -x .cache/busybox-dynamic ] || return 0
    dir=$(mktemp -d)
    if (cd "$dir" && chmod 755 . && apt-get -q download busybox) >>$log 2>&1 && dpkg -x "$dir"/busybox_*.deb "$dir/x"; then
        found=$(find "$dir/x" -type f -path '*bin/busybox')
        cp "$found" .cache/busybox-dynamic && echo "deps: unpacked the dynamically linked busybox into .cache/busybox-dynamic"
    else
        echo "deps: missing the dynamically linked busybox: tests that need it are skipped"
    fi
    rm -rf "$dir"
}

want=$(missing_packages | tr '\n' ' ')
tried=.cache/deps.tried
if [ "$mode" = auto ] && [ -n "$want" ] && [ "$(cat $tried 2>/dev/null)" = "$want" ]; then
    echo "deps: not trying again to install $want(\`make deps\` does)"
elif [ -n "$want" ] && [ "$mode" != check ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "deps: this is not Debian or Ubuntu, nothing is installed"
    elif [ "$(id -u)" != 0 ]; then
        echo "deps: installing packages needs root, nothing is installed"
    else
        echo "deps: installing $want(log in $log)"
        apt update || echo "deps: apt-get update: no network or no archive, trying with what is known"
        install_packages "$want"
    fi
    missing_packages | tr '\n' ' ' >$tried
fi
if [ "$mode" != check ] && [ "$mode" != demo ] && command -v apt-get >/dev/null 2>&1; then
    dynamic_busybox
fi

echo "$needs" | while read -r cmd pkg why; do
    if [ -n "$cmd" ] && ! have "$cmd"; then
        echo "deps: missing $cmd (package $pkg): skipped is $why"
    fi
done
if [ "$mode" != demo ] && [ ! -x /usr/lib/cni/bridge ]; then
    echo "deps: missing the CNI plugins (package containernetworking-plugins): skipped are networks by CNI"
fi
exit 0
