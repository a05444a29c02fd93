#!/usr/bin/env bash
# make demo: packs Debian's busybox as a container image with nothing but cp, tar and sha256sum, runs it with `tare run`, and
# shows from the inside that what runs is isolated and limited; then sends the image through a registry and back. Needs root,
# bin/ and busybox-static; no network. Leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "demo: containers need root here: sudo make demo"; exit 1; }
busybox=$(command -v busybox) || { echo "demo: busybox is missing: apt-get install busybox-static"; exit 1; }
if ldd "$busybox" >/dev/null 2>&1; then echo "demo: $busybox is not static: apt-get install busybox-static"; exit 1; fi
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tare-demo.XXXXXX")
registry=
trap '[ -z "$registry" ] || kill $registry; rm -rf "$tmp"' EXIT
tare=$PWD/bin/tare
failures=0

bold=''; dim=''; plain=''
if [ -t 1 ]; then bold=$'\e[1m'; dim=$'\e[2m'; plain=$'\e[0m'; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() { "$tare" run --root "$tmp/store" --rm "$@"; }
show() { printf '%s$ tare run --rm %s%s\n' "$dim" "$1" "$plain"; }
expect() { # STATUS WHAT COMMAND…
    local want=$1 what=$2 got=0
    shift 2
    "$@" || got=$?
    if [ "$got" = "$want" ]; then
        echo "  -> exit status $got: $what"
    else
        echo "  -> exit status $got, not $want: THIS SHOULD NOT BE ($what)"
        failures=$((failures + 1))
    fi
}

say "1. An image is a tar archive of files and a little JSON: here is one, of busybox, made by hand."
mkdir -p "$tmp"/files/{bin,etc,proc,sys,dev,tmp,root}
cp "$busybox" "$tmp/files/bin/busybox"
for applet in sh cat echo grep hostname id ip ls mkdir mount nproc ps sleep sort tail touch true wc awk head; do
    ln -s busybox "$tmp/files/bin/$applet"
done
echo 'root:x:0:0::/root:/bin/sh' >"$tmp/files/etc/passwd"
echo 'root:x:0:' >"$tmp/files/etc/group"
tar -C "$tmp/files" --owner=0 --group=0 -cf "$tmp/layer.tar" .
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(go env GOARCH) ;; esac
cat >"$tmp/config.json" <<JSON
{"architecture": "$arch", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum "$tmp/layer.tar" | cut -d' ' -f1)"]}}
JSON
echo '[{"Config": "config.json", "RepoTags": ["demo:latest"], "Layers": ["layer.tar"]}]' >"$tmp/manifest.json"
tar -C "$tmp" -cf "$tmp/demo.tar" manifest.json config.json layer.tar
echo "  $(du -h "$tmp/demo.tar" | cut -f1) docker-archive with one layer, as docker save writes it"
image=docker-archive:$tmp/demo.tar

say "2. A process from it, alone in its namespaces."
cat >"$tmp/look" <<'SH'
echo "  my pid:           $$"
echo "  processes I see:  $(ls /proc | grep -c '^[0-9]')  (ls and grep are two of them)"
echo "  my host name:     $(hostname)"
echo "  network devices:  $(ls /sys/class/net | head -5)"
echo "  my root:          $(mount | grep ' / ' | awk '{print $1, "of type", $5}')"
echo "  mounts I see:     $(mount | wc -l)"
echo "  may I mount?      $(mount -t tmpfs none /tmp 2>&1 | head -1)"
SH
show "-h demo demo.tar sh   # prints what it sees"
run -h demo -v "$tmp/look:/look:ro" "$image" sh /look
echo "  ${dim}(the host: $(find /proc -maxdepth 1 -name '[0-9]*' | wc -l) processes, host name $(hostname), $(wc -l </proc/mounts) mounts)${plain}"

say "3. Limits, as the kernel tells the process."
cat >"$tmp/limits" <<'SH'
g=/sys/fs/cgroup
if [ -e $g/cgroup.controllers ]; then m=$g/memory.max p=$g/pids.max; else m=$g/memory/memory.limit_in_bytes p=$g/pids/pids.max; fi
echo "  memory:     $(cat $m) bytes"
echo "  processes:  $(cat $p)"
SH
show "--memory 32m --pids-limit 10 demo.tar sh"
run --memory 32m --pids-limit 10 -v "$tmp/limits:/limits:ro" "$image" sh /limits

say "4. A process that takes more memory than that is killed, and nothing else is."
show "--memory 32m demo.tar tail /dev/zero   # keeps an endless line in memory"
expect 137 "128 + SIGKILL, from the kernel's out-of-memory killer" run --memory 32m "$image" sh -c 'tail /dev/zero; exit $?' 2>/dev/null

say "5. A process that starts too many others is refused."
show "--pids-limit 10 demo.tar sh -c '…20 times sleep 5 &…'"
expect 0 "the shell was refused a process and said so" sh -c '"$@" 2>&1 | grep -m1 "fork"' sh \
    "$tare" run --root "$tmp/store" --rm --pids-limit 10 "$image" sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 5 & done'

say "6. Exit statuses come through, and tare's own are docker's."
expect 7 "the process's" run "$image" sh -c 'exit 7'
expect 127 "no such program" run "$image" nope
expect 126 "not a program" run "$image" /etc/passwd
expect 125 "tare cannot do that" run --memory lots "$image" true

say "7. A registry, an image sent there, and a machine that has never seen it."
"$PWD/bin/tared" registry --listen 127.0.0.1:0 --root "$tmp/registry" >"$tmp/registry.log" 2>&1 &
registry=$!
for _ in $(seq 100); do
    at=$(sed -n 's,.*http://\([0-9.:]*\).*,\1,p' "$tmp/registry.log" | head -1)
    [ -z "$at" ] || break
    sleep 0.1
done
[ -n "$at" ] || { cat "$tmp/registry.log"; exit 1; }
other() { # COMMAND… as it would be on that machine
    local command=$1
    shift
    printf '%s$ tare %s %s%s\n' "$dim" "$command" "$(echo "$*" | sed "s,$tmp/,,g")" "$plain"
    "$tare" "$command" --root "$tmp/other" "$@"
}
other copy --quiet "$image" "docker://$at/demo:1"
other search "$at/demo"
expect 0 "pulled, unpacked and run" other run --rm "$at/demo:1" sh -c 'echo "  hello from $(hostname)"' </dev/null
other images
other why "$at/demo:1"
other save --output "$tmp/saved.tar" "$at/demo:1"
echo "  $(tar tf "$tmp/saved.tar" | wc -l) entries in a file that docker, podman, skopeo and ctr load"
expect 0 "taken out of the store" other rmi "$at/demo:1"
expect 0 "nothing is broken" other fsck
kill $registry && wait $registry 2>/dev/null || true
registry=

say "8. And nothing is left."
left=$(find "$tmp/store/containers" "$tmp/store/names" "$tmp/store/running" -mindepth 1 | wc -l)
mounts=$(grep -c "$tmp" /proc/mounts || true)
echo "  files of containers: $left, mounts on the host: $mounts"
[ "$left$mounts" = 00 ] || failures=$((failures + 1))

say "How fast? Twenty containers, one after the other:"
start=$(date +%s%N)
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do run "$image" true </dev/null; done
echo "  $((($(date +%s%N) - start) / 20000000)) ms each, from typing to prompt"

echo
if [ $failures = 0 ]; then echo "demo: all as it should be"; else echo "demo: $failures things are not as they should be"; exit 1; fi
