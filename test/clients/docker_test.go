package clients

import (
	"sync"
	"testing"
)

// dockerShell has d (docker, with one daemon per side), drun (a container of the side's runtime) and limit (what the host sees).
const dockerShell = `
d() { docker -H unix://$D/docker.sock --config $D/docker.cli "$@"; }
drun() { d run --runtime side --cgroup-parent /$M --network none "$@"; }
limit() { # limit CONTAINER CONTROLLER FILE
	pid=$(d inspect -f '{{.State.Pid}}' $1)
	cat "/sys/fs/cgroup/$2$(sed -n "s/^[0-9]*:$2://p" /proc/$pid/cgroup)/$3"
}
`

const dockerConf = `
echo 1 >/proc/sys/net/ipv4/ip_forward # of the suite's network namespace
mkdir -p docker docker.cli; echo '{}' >docker/none.json
setsid dockerd --config-file $D/docker/none.json --data-root $D/docker/root --exec-root $D/docker/exec --pidfile $D/docker/pid -H unix://$D/docker.sock \
	--storage-driver vfs --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --userland-proxy=false \
	--add-runtime side=$R --init-path "$(command -v docker-init)" --shutdown-timeout 1 >docker/log 2>&1 </dev/null &
await 'd version >/dev/null 2>&1' || { tail -20 docker/log; false; }
d import -c 'CMD ["/bin/sh"]' rootfs.tar bb:latest >/dev/null
quiet drun --rm bb true
quiet d run --runtime side --cgroup-parent /$M --network host --rm bb true # docker keeps a mount of this namespace
`

const dockerClean = `d ps -aq | xargs -r docker -H unix://$D/docker.sock rm -f >/dev/null; d volume prune -f >/dev/null`

var dockerOnce sync.Once

func TestDocker(t *testing.T) { docker(t, dockerRows) }

func docker(t *testing.T, rows []row) {
	t.Helper()
	w := sides(t, "podman", "conmon", "dockerd", "docker", "docker-init", "containerd")
	podmanOnce.Do(func() { prepare(t, w, podmanConf) })
	dockerOnce.Do(func() { prepare(t, w, dockerConf) })
	compare(t, w, dockerClean, rows)
}

var dockerRows = []row{
	{name: "status", script: `for a in true false nothing /etc/passwd /etc "sh -c exit\ 9"; do eval try drun --rm bb $a; done`,
		want: "status 0\nstatus 1\nstatus 127\nstatus 126\nstatus 126\nstatus 9", err: "SENTENCE"},
	{name: "streams", script: `drun --rm bb sh -c 'echo out; echo err >&2'; echo in | drun -i --rm bb cat`, want: "out\nin", err: "^err$"},
	{name: "inside", script: `drun --rm -e A=1 -w /new/dir --hostname here bb sh -c 'pwd; hostname; env | sort; id; ls /proc/self/fd; grep -E "^(Cap|NoNew|Seccomp)" /proc/self/status; awk "{print \$5}" /proc/self/mountinfo | sort; cd /dev; stat -c "%A %t %T %N" *; cut -d: -f2,3 /proc/self/cgroup'`,
		want: "~^/new/dir\nhere\nA=1\n"},
	{name: "detached run, exec, logs, stop", script: `quiet drun -d --name c1 bb sh -c 'trap "exit 3" TERM; echo up; while :; do sleep 0.05; done'; await 'd logs c1 | grep -q up'; d exec c1 echo in; try d exec c1 false; try d exec c1 nothing; try d exec c1 /etc/passwd
		d exec -u user -w /tmp -e B=2 c1 sh -c 'id; pwd; echo $B'; d exec -d c1 touch /tmp/f; await 'd exec c1 test -e /tmp/f'; d stop c1; d inspect -f '{{.State.Status}} {{.State.ExitCode}}' c1; d rm c1`,
		want: "~^in\nstatus 1\n(.*\n)*status 126\nuid=1000(.*\n)*c1\nexited 3\nc1$", err: ".*"},
	{name: "create, start, wait, restart, kill", script: `quiet d create --runtime side --cgroup-parent /$M --network none --name c1 bb sh -c 'echo hi; exec sleep 100'; d start c1; d restart -t 0 c1; d kill -s KILL c1; d wait c1; d logs c1; try d exec c1 true; try d kill c1`,
		want: "~^c1\nc1\nc1\n137\nhi\nhi\nstatus 1\nstatus 1$", err: "not running"},
	{name: "pause", script: `quiet drun -d --name c1 bb sleep 100; d pause c1; d inspect -f '{{.State.Status}}' c1; try d exec c1 true; d unpause c1; d exec c1 echo in; d pause c1; d rm -f c1`, want: "c1\npaused\nstatus 1\nc1\nin\nc1\nc1", err: "paused"},
	{name: "limits", v1: true, script: `quiet drun -d --name c1 --memory 64m --memory-swap 128m --pids-limit 50 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 bb sleep 100
		limit c1 memory memory.limit_in_bytes; limit c1 pids pids.max; limit c1 cpu cpu.cfs_quota_us; limit c1 cpu cpu.shares; limit c1 cpuset cpuset.cpus; limit c1 devices devices.list | sort
		d update --memory 80m --cpus 0.3 c1; limit c1 memory memory.limit_in_bytes; limit c1 cpu cpu.cfs_quota_us; d stats --no-stream --format '{{.PIDs}}' c1; d top c1 -o pid,args | awk 'END {print $2, $3}'`,
		want: "~^67108864\n50\n50000\n512\n0\n(.*\n)+c1\n83886080\n30000\n1\nsleep 100$"},
	{name: "volumes and read-only", script: `mkdir -p v; echo host >v/f; drun --rm --read-only -v $D/v:/v:ro -v named:/n --tmpfs /t:size=1m bb sh -c 'cat /v/f; touch /v/g /x 2>&1; touch /n/f /t/f; ls /n /t'; rm -r v`, want: "~^host\ntouch: /v/g: Read-only file system\ntouch: /x: Read-only file system\n"},
	{name: "privileges", script: `drun --rm --cap-drop all --cap-add net_admin --security-opt no-new-privileges --security-opt seccomp=unconfined --user 5:6 --group-add 7 bb sh -c 'id; grep -E "^(Cap|NoNew|Seccomp)" /proc/self/status'
		drun --rm --sysctl net.ipv4.ip_forward=1 --ulimit nofile=100:200 --device /dev/null:/dev/mine bb sh -c 'cat /proc/sys/net/ipv4/ip_forward; ulimit -n; ls /dev/mine'`, want: "~^uid=5 gid=6"},
	{name: "privileged", better: "where a capability is missing runc fails", script: `drun --rm --privileged bb sh -c 'mount -t tmpfs x /tmp && echo mounted'`, want: "mounted"},
	{name: "namespaces", script: `show='for n in pid net ipc; do readlink /proc/self/ns/$n; done'; quiet drun -d --name a1 --ipc shareable bb sleep 100; d exec a1 sh -c "$show" >a
		d run --runtime side --cgroup-parent /$M --rm --pid container:a1 --network container:a1 --ipc container:a1 bb sh -c "$show" | cmp - a && echo same
		d run --runtime side --cgroup-parent /$M --rm --pid host --network host --ipc host bb sh -c "$show" >b; sh -c "$show" | cmp - b && echo host; rm a b`, want: "same\nhost"},
	{name: "init", script: `drun --init --rm bb sh -c 'cat /proc/1/comm; exit 5'; echo $?`, want: "docker-init\n5"},
	{name: "terminal", script: `pty "drun -it --rm bb sh -c 'tty; until stty size 2>/dev/null | grep 33; do sleep 0.05; done; exit 4'"; echo $?; quiet drun -d --name c1 bb sleep 100; pty "d exec -it c1 sh -c 'tty; until stty size 2>/dev/null | grep 33; do sleep 0.05; done; exit 4'"; echo $?`,
		want: "/dev/pts/0\n33 77\n4\n/dev/pts/0\n33 77\n4"},
	{name: "copy", script: `quiet drun -d --name c1 bb sleep 100; echo x >f; d cp f c1:/tmp/f 2>/dev/null; d exec c1 cat /tmp/f; d cp c1:/etc/group - | tar -tf -; rm f`, want: "x\ngroup"},
	{name: "out of memory", script: `drun --name c1 --memory 24m bb sh -c 'x=$(head -c 200000000 /dev/zero | tr "\0" x)'; echo $?; d inspect -f '{{.State.OOMKilled}}' c1`, want: "~^137\n"},
	{name: "ten at once", script: `for i in $(seq 10); do drun --rm bb sh -c "echo $i; exit $i" >>out & pids="$pids $!"; done; for pid in $pids; do wait $pid; echo $?; done >st; tr '\n' ' ' <st; sort -n out | tr '\n' ' '; rm out st`, want: "1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 6 7 8 9 10"},
}
