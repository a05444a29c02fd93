package clients

import "testing"

func TestPodmanOptions(t *testing.T) { podman(t, podmanOptions) }

// podmanOptions are the options of podman run that reach the runtime and that no other row has.
var podmanOptions = []row{
	{name: "processor shares, periods and quotas", v1: true, script: `quiet run -d --name c --cpu-period 50000 --cpu-quota 20000 -c 300 --cpuset-mems 0 --cpuset-cpus 0 bb sleep 100
		for f in cpu.cfs_period_us cpu.cfs_quota_us cpu.shares; do cg c cpu $f; done; cg c cpuset cpuset.mems; cg c cpuset cpuset.cpus`, want: "50000\n20000\n300\n0\n0"},
	{name: "realtime processor time", v1: true, script: `try run --rm --cpu-rt-period 1000000 --cpu-rt-runtime 950000 bb true`, want: "~^status ", err: ".*"},
	{name: "memory without swap", v1: true, script: `quiet run -d --name c --memory 48m --memory-swap 48m --memory-swappiness 7 bb sleep 100
		for f in memory.limit_in_bytes memory.memsw.limit_in_bytes memory.swappiness; do cg c memory $f; done`, want: "50331648\n50331648\n7"},
	{name: "memory with unlimited swap", v1: true, script: `quiet run -d --name c --memory 48m --memory-swap -1 bb sleep 100; cg c memory memory.limit_in_bytes; cg c memory memory.memsw.limit_in_bytes`, want: "~^50331648\n\\d{16,}"},
	{name: "no out-of-memory killer", v1: true, script: `quiet run -d --name c --memory 48m --oom-kill-disable bb sleep 100; cg c memory memory.oom_control | head -1`, want: "oom_kill_disable 1"},
	{name: "out-of-memory score", script: `run --rm --oom-score-adj 321 bb cat /proc/self/oom_score_adj; run --rm bb cat /proc/self/oom_score_adj`, want: "~^321\n"},
	{name: "weight of input and output", v1: true, script: `try run --rm --blkio-weight 300 bb true`, want: "~^status ", err: ".*"},
	{name: "rates of devices", v1: true, script: `dev=/dev/$(awk '$4 !~ /loop|ram/ && NR > 2 {print $4; exit}' /proc/partitions); quiet run -d --name c --device-read-bps $dev:1mb --device-write-bps $dev:2mb --device-read-iops $dev:100 --device-write-iops $dev:200 bb sleep 100
		for f in read_bps write_bps read_iops write_iops; do cg c blkio blkio.throttle.${f}_device | cut -d' ' -f2; done`, want: "1048576\n2097152\n100\n200"},
	{name: "rule of devices", v1: true, script: `quiet run -d --name c --device-cgroup-rule 'c 10:229 rw' --device /dev/full bb sleep 100; cg c devices devices.list | LC_ALL=C sort; p exec c sh -c 'mknod /tmp/fuse c 10 229 && (: <>/tmp/fuse) 2>/dev/null; stat -c %t:%T /dev/full'`, want: "~c 10:229 rw\n"},
	{name: "no limit of processes", v1: true, script: `for l in -1 0 7; do quiet run -d --name c$l --pids-limit $l bb sleep 100; cg c$l pids pids.max; done`, want: "max\nmax\n7"},
	{name: "without cgroups", script: `try p run --rm --cgroups disabled --network none bb true`, want: "~^status ", err: ".*"},
	{name: "cgroup namespace", script: `for n in private host; do run --rm --cgroupns $n bb sh -c 'readlink /proc/self/ns/cgroup' >x; [ "$(cat x)" = "$(readlink /proc/self/ns/cgroup)" ] && echo $n: shared || echo $n: own; rm x; done
		run --rm --cgroupns private bb sh -c 'cut -d: -f2,3 /proc/self/cgroup | LC_ALL=C sort'`, want: "~^private: own\nhost: shared\n"},
	{name: "mask of new files", script: `run --rm --umask 0077 bb sh -c 'umask; touch /tmp/f; stat -c %a /tmp/f'; run --rm bb sh -c umask`, want: "0077\n600\n0022"},
	{name: "personality", better: "runc 1.1.5 does not know personalities", script: `run --rm --personality LINUX32 bb uname -m`, want: "i686"},
	{name: "entry point and environment file", script: `echo C=3 >env; run --rm --env-file env --unsetenv HOME --entrypoint '["/bin/env"]' bb | LC_ALL=C sort; rm env`, want: "~C=3\n"},
	{name: "descriptors that are passed on", script: `echo word >f; run --rm --preserve-fds 1 bb sh -c 'ls /proc/self/fd | tr "\n" " "; cat <&3' 3<f; rm f`, want: "0 1 2 3 4 word"},
	{name: "annotation", script: `quiet run -d --name c --annotation org.example.key=value bb sleep 100; $R --root $(ls -d $D/podman.run/../podman.tmp 2>/dev/null || echo /run) list -q >/dev/null 2>&1; p inspect -f '{{index .Config.Annotations "org.example.key"}}' c`, want: "value", err: ".*"},
	{name: "session keyring", script: `run --rm bb sh -c 'cat /proc/keys | wc -c'; run --rm --security-opt unmask=/proc/keys bb sh -c 'grep -q _ses /proc/keys && echo own'`, want: "0\nown"},
	{name: "secret", script: `echo hush | p secret create s - >/dev/null; run --rm --secret s bb cat /run/secrets/s; run --rm --secret s,type=mount,uid=5,gid=6,mode=0400 bb stat -c '%u %g %a' /run/secrets/s; quiet p secret rm s`, want: "hush\n5 6 400"},
	{name: "private and host's ipc", script: `for i in private shareable none; do run --rm --ipc $i bb sh -c 'stat -f -c %T /dev/shm 2>&1; [ $(readlink /proc/self/ns/ipc) = x ] || echo ns'; done`, want: "~^tmpfs\nns\n"},
	{name: "user namespaces that are chosen", script: `run --rm --userns host bb cat /proc/self/uid_map | tr -s ' '; run --rm --uidmap 0:100000:10 --uidmap 10:200000:100 --gidmap 0:100000:200 --user 12:13 bb sh -c 'id -u; id -g; tr -s " " </proc/self/uid_map'`, want: "~^0 0 \\d+\n12\n13\n 0 100000 10\n 10 200000 100$"},
	{name: "groups of the caller", script: `try run --rm --user 5:6 --group-add keep-groups bb id`, want: "~^", err: ".*"},
	{name: "hooks from a directory", script: `mkdir -p hooks; printf '#!/bin/sh\ncat >/dev/null\necho "$1" >>%s/hooked\n' $D >hook.sh; chmod 755 hook.sh
		for stage in prestart createRuntime createContainer poststart poststop; do echo '{"version":"1.0.0","hook":{"path":"'$D'/hook.sh","args":["hook","'$stage'"]},"when":{"always":true},"stages":["'$stage'"]}' >hooks/$stage.json; done
		p --hooks-dir $D/hooks run --cgroup-parent /$M --network none --rm bb true; LC_ALL=C sort hooked; rm -r hooked hooks hook.sh`, want: "createContainer\ncreateRuntime\npoststart\npoststop\nprestart"},
	{name: "hook that fails", script: `mkdir -p hooks; echo '{"version":"1.0.0","hook":{"path":"/bin/false"},"when":{"always":true},"stages":["createRuntime"]}' >hooks/x.json; try p --hooks-dir $D/hooks run --cgroup-parent /$M --network none --rm bb true; rm -r hooks; p ps -aq | wc -l`, want: "~^status 12\\d\n0$", err: "."},
	{name: "seccomp profile of the caller", script: `echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38},{"names":["getcwd"],"action":"SCMP_ACT_LOG"}]}' >p.json
		run --rm --security-opt seccomp=$D/p.json bb sh -c 'mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status'; rm p.json`, want: "mkdir: can't create directory '/tmp/x': Function not implemented\nSeccomp:\t2"},
	{name: "AppArmor and SELinux without the modules", script: `run --rm --security-opt apparmor=unconfined --security-opt label=disable bb echo in; try run --rm --security-opt apparmor=none-such bb true`, want: "~^in\nstatus", err: ".*"},
	{name: "options of volumes", script: `mkdir -p v/sub; for o in rw ro z noexec,nosuid,nodev bind rbind private slave U; do run --rm -v $D/v:/v:$o bb sh -c "echo $o \$(sed -n 's/.* \\/v \\([^ ]*\\) .*/\\1/p' /proc/self/mountinfo)"; done; rm -r v`, want: "~^rw rw"},
	{name: "copy-up of named volumes", script: `quiet p volume create n; run --rm -v n:/etc:nocopy bb sh -c 'ls /etc | grep -c group'; run --rm -v n:/etc:copy bb sh -c 'ls /etc | grep -c group'`, want: "~^\\d\n\\d$", err: ".*"},
	{name: "read-only temporary file system with mounts below", script: `run --rm --tmpfs /etc:ro bb sh -c 'stat -c %a /etc; ls /etc | wc -l; grep -o " /etc [^ ]*" /proc/self/mountinfo | tail -1; touch /etc/x 2>&1'`, want: "~^755\n", err: ".*"},
	{name: "mounts of other kinds", script: `mkdir -p v; run --rm --mount type=devpts,dst=/dp --mount type=bind,src=$D/v,dst=/v,bind-propagation=rslave,relabel=shared bb sh -c 'for m in /dp /v; do sed -n "s,.* $m \([^ ]*\) .*- \([a-z0-9]*\) .*,\1 \2,p" /proc/self/mountinfo | cut -d, -f1 ; done'; rm -r v`, want: "~^rw"},
	{name: "temporary file systems", script: `for o in "" :nosuid,exec :tmpcopyup :notmpcopyup,size=2m; do run --rm --tmpfs /etc$o bb sh -c 'stat -c %a /etc; ls /etc | wc -l; grep -o " /etc [^ ]*" /proc/self/mountinfo | tail -1'; done`, want: "~^\\d+\n"},
	{name: "root directory instead of an image", script: `p run --cgroup-parent /$M --network none --rm --rootfs $D/rootfs sh -c 'echo in; head -1 /etc/passwd'`, want: "in\nroot:x:0:0:root:/root:/bin/sh"},
	{name: "systemd mode", script: `run --rm --systemd always bb sh -c 'for m in /run /run/lock /tmp /sys/fs/cgroup/systemd; do grep -c " $m " /proc/self/mountinfo; done; echo $container'`, want: "~^1\n", err: ".*"},
	{name: "stop signal and time", script: `quiet run -d --name c --stop-signal USR1 --stop-timeout 3 bb sh -c 'trap "exit 8" USR1; echo up; while :; do sleep 0.05; done'; await 'p logs c | grep -q up'; p stop c; p inspect -f '{{.State.ExitCode}}' c`, want: "c\n8"},
	{name: "time limit", script: `try run --rm --timeout 1 bb sleep 100`, want: "~^status", err: ".*"},
	{name: "files with numbers", script: `quiet run -d --cidfile $D/cid --pidfile $D/pid --conmon-pidfile $D/cpid --name c bb sleep 100; [ "$(cat pid)" = "$(p inspect -f '{{.State.Pid}}' c)" ] && echo pid; [ "$(cat cid)" = "$(p inspect -f '{{.Id}}' c)" ] && echo id; rm cid pid cpid`, want: "pid\nid"},
	{name: "input that ends", script: `printf 'a\nb\n' | run --rm -i bb sh -c 'cat; echo end'; run --rm -a stdout bb sh -c 'echo out; echo err >&2'; run --rm -a stderr bb sh -c 'echo out; echo err >&2'`, want: "a\nb\nend\nout", err: "^err$"},
	{name: "much output", script: `run --rm bb sh -c 'head -c 3000000 /dev/zero | tr "\0" x' | wc -c; run --rm bb sh -c 'seq 20000' | cksum | cut -d' ' -f2; head -c 1000000 /dev/zero | run --rm -i bb wc -c`, want: "3000000\n108894\n1000000"},
	{name: "log driver that passes through", script: `p run --cgroup-parent /$M --network none --rm --log-driver passthrough bb sh -c 'echo out; echo err >&2' </dev/null`, want: "out", err: "^err$"},
	{name: "readiness from inside", script: `quiet run -d --sdnotify ignore --name c bb sh -c 'env | grep -c NOTIFY; exec sleep 100'; await 'p logs c | grep -q .'; p logs c`, want: "0"},
	{name: "limits of every kind", script: `run --rm --ulimit core=1:2 --ulimit cpu=100:200 --ulimit data=1000000000 --ulimit fsize=100000:200000 --ulimit memlock=1000:2000 --ulimit msgqueue=1000 --ulimit rtprio=0 --ulimit sigpending=50 --ulimit stack=1000000:2000000 --ulimit locks=5 --ulimit nofile=100:200 --ulimit nproc=4096:4096 bb cat /proc/self/limits`, want: `~core file size +1 +2 `},
	{name: "exec with an environment file", script: `echo F=1 >env; quiet run -d --name c bb sleep 100; p exec --env-file env -e G=2 c env | LC_ALL=C sort; rm env; echo word >f; p exec --preserve-fds 1 c cat /proc/self/fd/3 3<f; rm f`, want: "~F=1\nG=2\n"},
	{name: "generated configuration of a container that was renamed", script: `quiet run -d --name c bb sleep 100; p rename c d; p exec d echo in; p port d; p rm -f -t 0 d`, want: "in\nd"},
}
