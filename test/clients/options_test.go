package clients

import "testing"

func TestContainerdOptions(t *testing.T) { ctr(t, ctrOptions) }

// ctrOptions are the options of ctr that reach the runtime and that no other row has.
var ctrOptions = []row{
	{name: "processor shares, period and quota", v1: true, script: `crun -d --cpu-shares 300 --cpu-period 50000 --cpu-quota 20000 ` + bb + ` c sleep 100; cd /sys/fs/cgroup/cpu/$M/c; cat cpu.shares cpu.cfs_period_us cpu.cfs_quota_us`, want: "300\n50000\n20000"},
	{name: "cgroup of the caller", v1: true, script: `crun -d --cgroup /$M/other ` + bb + ` c sleep 100; cut -d: -f3 /proc/$(c task ls | awk '$1 == "c" {print $2}')/cgroup | grep -c /other`, want: "~^\\d+$"},
	{name: "device", script: `crun --rm --device /dev/full ` + bb + ` c sh -c 'exec 2>&1; stat -c "%F %t:%T" /dev/full; echo x >/dev/full'`, want: "~^character special file 1:7\n"},
	{name: "without pivot", script: `try crun --rm --no-pivot ` + bb + ` c sh -c 'echo in; ls -d /bin'`, want: "~status 0$", err: ".*"},
	// ctr drops a stream that it has not opened yet when the container has ended: the last command keeps the container for
	// that long.
	{name: "propagation of the root", script: `for p in shared slave private; do crun --rm --rootfs-propagation $p ` + bb + ` c sh -c "awk '\$5 == \"/\" {print \"$p\", \$7}' /proc/self/mountinfo; sleep 0.2" | tr -d 0-9; done`,
		want: "~^shared shared:\nslave (-|master:)\nprivate -$", better: "runc 1.1 leaves a root that is to be shared private"},
	{name: "seccomp profile of the caller", script: `echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >p.json; crun --rm --seccomp --seccomp-profile $D/p.json ` + bb + ` c mkdir /tmp/x 2>&1; rm p.json`, want: "mkdir: can't create directory '/tmp/x': Operation not permitted"},
	{name: "namespaces by path", script: `unshare -n sleep 100 & other=$!; await '[ "$(readlink /proc/'$other'/ns/net)" != "$(readlink /proc/self/ns/net)" ]'; crun --rm --with-ns network:/proc/$other/ns/net ` + bb + ` c sh -c 'ip -o link | wc -l'; kill $other; crun --rm --with-ns ipc:/proc/self/ns/ipc ` + bb + ` c true; echo $?`, want: "1\n0"},
	{name: "file with the number of the process", script: `crun -d --pid-file $D/pf ` + bb + ` c sleep 100; [ "$(cat pf)" = "$(c task ls | awk '$1 == "c" {print $2}')" ] && echo same; rm pf`, want: "same"},
	{name: "environment file, labels, annotations", script: `echo F=1 >env; crun --rm --env-file env --label a=b --annotation x.y=z ` + bb + ` c sh -c 'echo $F'; rm env`, want: "1"},
	{name: "configuration of the caller", script: `$R spec --bundle $D/rootfs/.. 2>/dev/null; jq '.process.terminal = false | .process.args = ["sh", "-c", "echo own; id -u"] | .root.path = "'$D'/rootfs" | .hostname = "mine" | .linux.cgroupsPath = "/own'$$'"' config.json >own.json; rm config.json; crun --rm --config $D/own.json c; rm own.json`, want: "own\n0"},
	{name: "null streams", script: `crun -d --null-io ` + bb + ` c sh -c 'readlink /proc/self/fd/0 /proc/self/fd/1; exit 4'; ends c; gone`, want: "4"},
	{name: "update by metrics", script: `crun -d --memory-limit 67108864 ` + bb + ` c sleep 100; c task metrics c | awk '/^pids.current|^pids.limit/ {print $1, $2}'`, want: "~pids"},
}

func TestDockerOptions(t *testing.T) { docker(t, dockerOptions) }

// dockerOptions are the options of docker that reach the runtime and that no other row has.
var dockerOptions = []row{
	{name: "processor period, quota and realtime", v1: true, script: `quiet drun -d --name c1 --cpu-period 50000 --cpu-quota 20000 --cpuset-mems 0 bb sleep 100; limit c1 cpu cpu.cfs_period_us; limit c1 cpu cpu.cfs_quota_us; limit c1 cpuset cpuset.mems`, want: "50000\n20000\n0"},
	{name: "memory", v1: true, script: `quiet drun -d --name c1 --memory 64m --memory-reservation 32m --memory-swap -1 --memory-swappiness 9 --oom-score-adj 123 bb sleep 100; for f in limit_in_bytes soft_limit_in_bytes swappiness oom_control; do limit c1 memory memory.$f | head -1; done; d exec c1 cat /proc/1/oom_score_adj`, want: "67108864\n33554432\n9\noom_kill_disable 0\n123"},
	{name: "rates of devices", v1: true, script: `dev=/dev/$(awk '$4 !~ /loop|ram/ && NR > 2 {print $4; exit}' /proc/partitions); quiet drun -d --name c1 --device-read-bps $dev:1mb --device-write-iops $dev:200 bb sleep 100; limit c1 blkio blkio.throttle.read_bps_device | cut -d' ' -f2; limit c1 blkio blkio.throttle.write_iops_device | cut -d' ' -f2`, want: "1048576\n200"},
	{name: "rule of devices", v1: true, script: `quiet drun -d --name c1 --device-cgroup-rule 'c 10:229 rw' bb sleep 100; limit c1 devices devices.list | LC_ALL=C sort`, want: "~c 10:229 rw"},
	{name: "cgroup namespace", script: `for n in private host; do drun --rm --cgroupns $n bb readlink /proc/self/ns/cgroup >x; [ "$(cat x)" = "$(readlink /proc/self/ns/cgroup)" ] && echo $n: shared || echo $n: own; rm x; done`, want: "private: own\nhost: shared"},
	{name: "host and domain name", script: `drun --rm --hostname here --domainname there bb sh -c 'hostname; cat /proc/sys/kernel/domainname'; drun --rm --uts host bb hostname >x; [ "$(cat x)" = "$(hostname)" ] && echo host; rm x`, want: "here\nthere\nhost"},
	{name: "shared memory and ipc", script: `drun --rm --shm-size 2m bb sh -c 'df -k /dev/shm | tail -1 | awk "{print \$2}"'; drun --rm --ipc none bb sh -c 'grep -c /dev/shm /proc/self/mountinfo'`, want: "~^2048\n"},
	{name: "mounts", script: `mkdir -p v; drun --rm --mount type=bind,src=$D/v,dst=/v,readonly,bind-propagation=rslave --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 --mount type=volume,src=named,dst=/n,volume-nocopy bb sh -c 'touch /v/x 2>&1; stat -c %a /t; for m in /v /t /n; do sed -n "s,.* $m \([^ ]*\) .*,\1,p" /proc/self/mountinfo; done'; rm -r v`, want: "~^touch: /v/x: Read-only file system\n1770\nro"},
	{name: "limits of every kind", script: `drun --rm --ulimit core=1:2 --ulimit cpu=100:200 --ulimit fsize=100000:200000 --ulimit memlock=1000:2000 --ulimit nproc=500:600 --ulimit stack=1000000:2000000 bb cat /proc/self/limits`, want: `~core file size +1 +2 `},
	{name: "masks and system paths", script: `drun --rm --security-opt systempaths=unconfined bb sh -c 'grep -c " /proc/" /proc/self/mountinfo'; drun --rm bb sh -c 'grep -o " /proc/[^ ]* " /proc/self/mountinfo | LC_ALL=C sort'`, want: "~^0\n"},
	{name: "seccomp profile of the caller", script: `echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >p.json; drun --rm --security-opt seccomp=$D/p.json bb mkdir /tmp/x 2>&1; drun --rm bb sh -c 'unshare -r true 2>&1; grep Seccomp: /proc/self/status'; rm p.json`, want: "~Operation not permitted\n"},
	{name: "stop signal, entry point, working directory", script: `quiet drun -d --name c1 --stop-signal USR1 --entrypoint sh -w /tmp/new bb -c 'trap "exit 8" USR1; pwd; while :; do sleep 0.05; done'; await 'd logs c1 | grep -q new'; d stop c1; d inspect -f '{{.State.ExitCode}}' c1; d logs c1`, want: "c1\n8\n/tmp/new"},
	{name: "exec with every option", script: `quiet drun -d --name c1 bb sleep 100; echo F=1 >env; d exec --env-file env -e G=2 -w /tmp -u 5:6 c1 sh -c 'id; pwd; echo $F $G'; d exec --privileged c1 grep CapBnd /proc/self/status; echo in | d exec -i c1 cat; rm env`, want: "~^uid=5 gid=6 groups=6\n/tmp\n1 2\n(.*\n)?in$", err: ".*", better: "where a capability is missing runc fails"},
}

func TestBuildahOptions(t *testing.T) { buildah(t, buildahOptions) }

// buildahOptions are the options of buildah that reach the runtime and that no other row has.
var buildahOptions = []row{
	{name: "namespaces of the host", script: `from; for n in ipc pid uts cgroup; do f=--$n; [ $n = cgroup ] && f=--cgroupns; brun $f host w readlink /proc/self/ns/$n >x; [ "$(cat x)" = "$(readlink /proc/self/ns/$n)" ] && echo $n; rm x; done; ip link del cni-podman0 2>/dev/null; true`, want: "~^ipc\npid\nuts", err: ".*"},
	{name: "mounts", script: `from; mkdir -p v; brun --mount type=bind,src=$D/v,dst=/v,ro --mount type=tmpfs,dst=/t w sh -c 'touch /v/x 2>&1; touch /t/x; ls /t'; for o in ro rw,noexec private O; do brun -v $D/v:/v:$o w sh -c "echo $o \$(sed -n 's/.* \\/v \\([^ ]*\\) .*/\\1/p' /proc/self/mountinfo | cut -d, -f1)"; done; rm -r v`, want: "~^touch: /v/x: Read-only file system\nx\n", err: ".*"},
	{name: "without pivot", script: `from; brun --no-pivot w sh -c 'echo in; ls -d /bin'`, want: "in\n/bin", err: ".*"},
	{name: "flags of the runtime", script: `from; brun --runtime-flag debug w echo in 2>/dev/null; try brun --runtime-flag nosuch w true 2>/dev/null`, want: "~^in\nstatus [1-9]"},
	{name: "limits of a working container", script: `b from -q --memory 64m --cpu-shares 300 --cpuset-cpus 0 --ulimit nofile=1024:1024 --shm-size 2m --cgroup-parent /$M/b --name w localhost/bb >/dev/null; brun w sh -c 'ulimit -n; df -k /dev/shm | tail -1 | awk "{print \$2}"; grep Cpus_allowed_list /proc/self/status'`, want: "~^1024\n2048\nCpus_allowed_list:\t0$"},
	{name: "input, output and much of it", script: `from; printf 'a\nb\n' | brun w cat; brun w sh -c 'head -c 1000000 /dev/zero | tr "\0" x' | wc -c; brun w sh -c 'echo err >&2; exit 9'; echo $?`, want: "a\nb\n1000000\n9", err: "(?s)^err"},
}
