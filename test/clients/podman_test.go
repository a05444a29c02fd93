package clients

import (
	"sync"
	"testing"
)

// podmanShell has p (podman of the side), run (p run in the side's cgroup), and the configuration of both.
const podmanShell = `
p() { podman --root $D/podman --runroot $D/podman.run --tmpdir $D/podman.tmp --storage-driver vfs --runtime $R "$@"; }
run() { p run --cgroup-parent /$M --network none "$@"; }
create() { p create --cgroup-parent /$M --network none "$@"; }
is() { [ "$(p inspect -f "{{.State.$2}}" "$1")" = "$3" ]; } # is CONTAINER FIELD VALUE
cg() { # cg CONTAINER CONTROLLER FILE: what the host sees
	pid=$(p inspect -f '{{.State.Pid}}' $1)
	cat "/sys/fs/cgroup/$2$(sed -n "s/^[0-9]*:$2://p" /proc/$pid/cgroup)/$3"
}
`

const podmanConf = `
cat >containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime_supports_json = ["runc", "tare-runtime"]
END
mkdir -p rootfs/bin rootfs/proc rootfs/sys rootfs/dev rootfs/tmp rootfs/etc rootfs/root rootfs/var
cp $(command -v busybox) rootfs/bin/busybox
for a in $(busybox --list); do [ $a = busybox ] || ln -s busybox rootfs/bin/$a; done
chmod 1777 rootfs/tmp
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n' >rootfs/etc/passwd
printf 'root:x:0:\nuser:x:1000:\nstaff:x:50:user\n' >rootfs/etc/group
tar -C rootfs -cf rootfs.tar .
p import -q -c 'CMD ["/bin/sh"]' rootfs.tar localhost/bb:latest
quiet run --rm bb true
`

const podmanClean = `p pod rm -fa -t 0; p rm -fa -t 0; p volume rm -fa`

var podmanOnce sync.Once

func podman(t *testing.T, rows []row) {
	t.Helper()
	w := sides(t, "podman", "conmon")
	podmanOnce.Do(func() { prepare(t, w, podmanConf) })
	compare(t, w, podmanClean, rows)
}

func TestPodmanStatus(t *testing.T) { podman(t, podmanStatus) }

var podmanStatus = []row{
	{name: "of the program", script: `try run --rm bb true; try run --rm bb false; try run --rm bb sh -c 'exit 42'`,
		want: "status 0\nstatus 1\nstatus 42"},
	{name: "127 not found", script: `try run --rm bb nothing; try run --rm bb /bin/nothing`,
		want: "status 127\nstatus 127", err: "not found"},
	{name: "126 not executable", script: `try run --rm bb /etc/passwd; try run --rm bb /etc`, want: "status 126\nstatus 126", err: "permission denied"},
	{name: "a runtime that Podman does not know", better: "Podman knows runc's log format", script: `grep -v json containers.conf >plain.conf; export CONTAINERS_CONF=$D/plain.conf
		try run --rm bb nothing; try run --rm bb /etc/passwd; try run --rm bb sh -c 'exit 5'`, want: "status 127\nstatus 126\nstatus 5", err: "not found"},
	{name: "126 working directory is a file", script: `try run --rm -w /etc/passwd bb true`, want: "status 126", err: "."},
	{name: "125 of podman", script: `try run --rm -v /none:/x bb true; try run --rm --user nobody bb true`, want: "~^status 12[56]\nstatus 12[56]$", err: "."},
	{name: "137 killed", script: `quiet run -d --name c bb sleep 100; quiet p kill c; p wait c; p inspect -f '{{.State.Status}} {{.State.ExitCode}}' c`,
		want: "137\nexited 137"},
	{name: "143 terminated", script: `quiet run -d --name c bb sh -c 'trap "exit 3" TERM; echo up; while :; do sleep 0.1; done'
		await 'p logs c | grep -q up'; quiet p stop c; p inspect -f '{{.State.ExitCode}}' c`, want: "3"},
	{name: "137 stop of a deaf program", script: `quiet run -d --name c bb sleep 100; quiet p stop -t 1 c 2>/dev/null; p inspect -f '{{.State.ExitCode}}' c`, want: "137"},
	{name: "out of memory", script: `run --name c --memory 24m bb sh -c 'x=$(head -c 200000000 /dev/zero | tr "\0" x)'; echo status $?`, want: "status 137"},
}

func TestPodmanInside(t *testing.T) { podman(t, podmanInside) }

var podmanInside = []row{
	{name: "mount points", script: `run --rm bb awk '{print $5}' /proc/self/mountinfo | LC_ALL=C sort`, want: "~(?s)^/\n.*/proc/keys\n.*/sys/fs/cgroup\n"},
	{name: "devices", script: `run --rm bb sh -c 'cd /dev; stat -c "%A %U %G %t %T %N" * pts/*'`, want: "~crw-rw-rw- root root 1 3 null"},
	{name: "privileges", script: `run --rm bb grep -E '^(Cap|NoNew|Seccomp|Uid|Gid|Groups)' /proc/self/status`, want: "~Seccomp:\t2"},
	{name: "limits", script: `run --rm --ulimit nofile=100:200 --ulimit nproc=4096:4096 --ulimit core=0 bb cat /proc/self/limits`, want: `~open files +100 +200`},
	{name: "environment", script: `run --rm -e A=1 -e 'B=two words' bb env | LC_ALL=C sort`, want: "~A=1\nB=two words\nHOME=/root\nHOSTNAME=ID"},
	{name: "descriptors", script: `run --rm bb ls /proc/self/fd; echo in | run --rm -i bb cat; run --rm bb readlink /proc/self/fd/0`, want: "0\n1\n2\n3\nin\n/dev/null"},
	{name: "the host's null device", better: "runc leaves the host's in exec",
		script: `run -d --name c bb sleep 100 >/dev/null
		for x in run\ --rm\ bb p\ exec\ c; do $x sh -c '[ $(stat -Lc %d:%i /proc/self/fd/0) = $(stat -c %d:%i /dev/null) ] || echo is another file; chmod 600 /proc/keys 2>/dev/null'; done
		stat -c %a /dev/null`, want: "666"},
	{name: "streams", script: `run --rm bb sh -c 'echo out; echo err >&2; readlink /proc/self/ns/net >/dev/null && echo again'`, want: "out\nagain", err: "^err$"},
	{name: "paths that are masked and read-only", script: `run --rm bb sh -c 'for f in /proc/keys /proc/timer_list /sys/firmware; do ls $f >/dev/null && cat $f 2>&1 | wc -c; done
		for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/x /sys/x; do echo x 2>/dev/null >$f && echo written $f; done; true'`, want: "~^0\n0\n\\d+$"},
	{name: "host name", script: `run --rm --hostname here bb sh -c 'hostname; cat /etc/hostname'`, want: "here\nhere"},
	{name: "user", script: `run --rm --user user bb sh -c 'id; pwd; echo $HOME; touch /tmp/f && stat -c %u:%g /tmp/f; touch /etc/f 2>&1'
		run --rm --user 5:6 --group-add 7 bb id; run --rm --user user:staff bb id; run --rm --user user bb sh -c 'grep Cap /proc/self/status'`,
		want: "~uid=1000"},
	{name: "streams of a user", script: `run --rm --user user bb sh -c 'echo out >/dev/stdout; echo err >/dev/stderr'`, want: "out", err: "^err$"},
	{name: "working directory", script: `run --rm -w /tmp bb pwd; run --rm bb pwd; run --rm --user user -w /root bb pwd`, want: "/tmp\n/\n/root"},
	{name: "init", script: `run --rm --init --init-path $(command -v docker-init || command -v tini) bb sh -c 'cat /proc/1/comm; [ $$ -gt 1 ] && echo child; exit 5'; echo $?`, want: "podman-init\nchild\n5"},
	{name: "sysctl", script: `run --rm --sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=9000 bb cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax`, want: "1\n9000"},
	{name: "network none", script: `run --rm bb sh -c 'ip -o link | cut -d: -f2; ip -o link show lo | grep -o "LOOPBACK,UP"; ping -c1 -W1 127.0.0.1 >/dev/null && echo pong'`, want: "~lo"},
	{name: "network host", script: `p run --rm --cgroup-parent /$M --network host bb readlink /proc/self/ns/net >net; [ "$(cat net)" = "$(readlink /proc/self/ns/net)" ] && echo same`, want: "same"},
	{name: "process and ipc namespaces of the host", script: `show='for n in pid ipc uts; do readlink /proc/self/ns/$n; done'
		run --rm --pid host --ipc host --uts host bb sh -c "$show" >ns
		sh -c "$show" | cmp - ns && echo same`, want: "same"},
	{name: "namespaces of another container", script: `quiet run -d --name a bb sleep 100
		show='for n in pid net ipc; do readlink /proc/self/ns/$n; done'
		p exec a sh -c "$show" >a
		p run --rm --cgroup-parent /$M --pid container:a --network container:a --ipc container:a bb sh -c "$show" | cmp - a && echo same`, want: "same"},
	{name: "user namespace", script: `run --rm --uidmap 0:100000:2000 --gidmap 0:200000:2000 bb sh -c 'id; awk "{print \$1,\$2,\$3}" /proc/self/uid_map /proc/self/gid_map; touch /f; stat -c %u:%g /f /bin /proc/1; mount -t tmpfs x /mnt 2>&1; cat /proc/keys | wc -c; ls -ld /dev/null'`,
		want: "~uid=0"},
	{name: "seccomp", script: `run --rm --security-opt seccomp=unconfined bb grep Seccomp: /proc/self/status; run --rm bb sh -c 'unshare -r true 2>&1; mount -t proc x /proc 2>&1'
		run --rm --cap-add sys_admin bb sh -c 'mount -t tmpfs x /tmp && echo mounted'`, want: "~^Seccomp:\t0\n(.*denied.*\n)+mounted$"},
	{name: "capabilities", script: `run --rm --cap-drop all bb grep CapEff /proc/self/status; run --rm --cap-add net_admin --cap-drop chown bb grep CapEff /proc/self/status
		run --rm --cap-drop all --cap-add net_bind_service --user user bb grep Cap /proc/self/status`, want: "~^CapEff:\t0000000000000000\n"},
	{name: "no new privileges", script: `run --rm --security-opt no-new-privileges bb grep NoNewPrivs /proc/self/status`, want: "NoNewPrivs:\t1"},
	{name: "privileged", script: `run --rm --privileged bb sh -c 'grep -E "^(CapEff|Seccomp:)" /proc/self/status; echo 1 >/proc/sys/net/ipv4/ip_forward && echo written; ls /dev | grep -c kmsg; mount -t tmpfs x /tmp && echo mounted; grep -c " /proc/" /proc/self/mountinfo'`,
		want: "~written"},
	{name: "masks that are chosen", script: `run --rm --security-opt mask=/etc/group:/var --security-opt unmask=/proc/keys bb sh -c 'wc -c </etc/group; ls /var; touch /var/f 2>&1; grep -c "/proc/keys " /proc/self/mountinfo'`,
		want: "~^0\n"},
}

func TestPodmanMounts(t *testing.T) { podman(t, podmanMounts) }

var podmanMounts = []row{
	{name: "volume", script: `mkdir -p v; echo host >v/f; run --rm -v $D/v:/v bb sh -c 'cat /v/f; echo inside >/v/g'; cat v/g
		run --rm -v $D/v:/v:ro bb sh -c 'echo x 2>&1 >/v/h'; run --rm -v $D/v/f:/etc/one bb cat /etc/one; rm -r v`, want: "host\ninside\nsh: can't create /v/h: Read-only file system\nhost"},
	{name: "named volume", script: `quiet p volume create n; run --rm -v n:/n bb sh -c 'echo kept >/n/f'; run --rm -v n:/n bb cat /n/f; run --rm -v n:/var bb cat /var/f`, want: "kept\nkept"},
	{name: "volume of a path that is missing in the image", script: `mkdir -p v; run --rm -v $D/v:/a/b/c:rw,nosuid,nodev bb sh -c 'ls -d /a/b/c; grep -o "/a/b/c [^ ]*" /proc/self/mountinfo'; rm -r v`, want: "~^/a/b/c\n/a/b/c rw,nosuid,nodev"},
	{name: "propagation", script: `mkdir -p v; for o in rprivate rslave rshared; do run --rm -v $D/v:/v:$o bb sed -n 's/.* \/v [^ ]* \(.*\)- .*/\1/p' /proc/self/mountinfo | sed 's/[0-9]//g'; done; rm -r v`, want: "~shared:"},
	{name: "tmpfs", script: `run --rm --tmpfs /t:size=1m,mode=700,noexec --tmpfs /etc bb sh -c 'stat -c %a /t; ls /etc | tr "\n" " "; grep -o "/t [^ ]*" /proc/self/mountinfo; df -k /t | tail -1 | awk "{print \$2}"'`, want: "~^700\n"},
	{name: "mount option", script: `run --rm --mount type=tmpfs,dst=/t,tmpfs-size=1m --mount type=bind,src=/etc,dst=/h,ro,bind-nonrecursive bb sh -c 'touch /h/x 2>&1; touch /t/x; ls /t'`, want: "touch: /h/x: Read-only file system\nx"},
	{name: "shared memory size", script: `run --rm --shm-size 1m bb sh -c 'df -k /dev/shm | tail -1 | awk "{print \$2}"'`, want: "1024"},
	{name: "read-only", script: `run --rm --read-only bb sh -c 'touch /x 2>&1; touch /tmp/x && echo tmp; touch /dev/shm/x && echo shm'; run --rm --read-only --read-only-tmpfs=false bb touch /tmp/x`,
		want: "touch: /x: Read-only file system\ntmp\nshm", err: "Read-only file system"},
	{name: "device", script: `run --rm --device /dev/null:/dev/mine:r bb sh -c 'stat -c "%A %t:%T" /dev/mine; cat /dev/mine | wc -c; (echo x >/dev/mine) 2>&1'`, want: "~1:3"},
	{name: "device that is not allowed", script: `run --rm bb sh -c 'mknod /tmp/kmsg c 1 11; cat /tmp/kmsg 2>&1'`, want: "cat: can't open '/tmp/kmsg': Operation not permitted"},
	{name: "copy", script: `quiet run -d --name c bb sleep 100; echo x >f; p cp f c:/tmp/f; p exec c cat /tmp/f; p cp c:/etc/passwd out; head -1 out; p diff c | LC_ALL=C sort; rm f out`,
		want: "~^x\nroot:x:0:0"},
	{name: "hosts", script: `run --rm --name c --add-host a:10.0.0.1 bb cat /etc/hosts`, want: "~10.0.0.1"},
}
