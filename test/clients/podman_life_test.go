package clients

import "testing"

func TestPodmanLife(t *testing.T) { podman(t, podmanLife) }

var podmanLife = []row{
	{name: "detached run", script: `quiet run -d --name c bb sh -c 'echo one; echo two >&2; sleep 100'; await 'p logs c 2>/dev/null | grep -q one'
		p logs c; p ps --format '{{.Names}} {{.Image}}'; p inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.OCIRuntime}}' c | sed "s,$R,R,"; p rm -f -t 0 c`,
		want: "one\nc localhost/bb:latest\nrunning 0 R\nc", err: "^two$"},
	{name: "create and start", script: `quiet create --name c bb sh -c 'echo hello; exit 4'; p ps -a --format '{{.Status}}'; p start -a c; echo $?; p start -a c; echo $?; p rm c`,
		want: "~^Created\nhello\n4\nhello\n4\n"},
	{name: "init without start", script: `quiet create --name c bb sh -c 'echo hello'; p init c; is c Status initialized && echo ready; p start -a c; p rm c`, want: "c\nready\nhello\nc"},
	{name: "init and remove", script: `quiet create --name c bb sleep 100; p init c; p rm -f c`, want: "c\nc"},
	{name: "restart", script: `quiet run -d --name c bb sh -c 'echo up; exec sleep 100'; quiet p stop -t 0 c; p start c; is c Running true && echo runs; p restart -t 0 c; await '[ $(p logs c | grep -c up) = 3 ]'; p exec c echo in`,
		want: "c\nruns\nc\nin"},
	{name: "restart policy", script: `quiet run -d --name c --restart on-failure:2 bb sh -c 'echo try; exit 1'; await 'is c Status exited && [ $(p logs c | grep -c try) = 3 ]'; p inspect -f '{{.RestartCount}} {{.State.ExitCode}}' c`, want: "2 1"},
	{name: "pause", script: `quiet run -d --name c bb sh -c 'while :; do date +%s%N >/tmp/t; sleep 0.02; done'; await 'p exec c test -s /tmp/t'
		p pause c; is c Status paused && echo paused; try p exec c true 2>/dev/null; p unpause c; is c Status running && echo runs; p exec c echo in; p pause c; p rm -f -t 0 c`,
		want: "~^c\npaused\nstatus 255\nc\nruns\nin\nc\nc$", err: ""},
	{name: "signals", script: `quiet run -d --name c bb sh -c 'trap "echo usr1" USR1; trap "echo hup" HUP; trap "echo term; exit 9" TERM; echo up; while :; do sleep 0.05; done'; await 'p logs c | grep -q up'
		for s in USR1 1 SIGTERM; do p kill -s $s c; await "[ \$(p logs c | wc -l) -gt $((n0 = ${n0:-0} + 1)) ]"; done; p wait c; p logs c`, want: "c\nc\nc\n9\nup\nusr1\nhup\nterm"},
	{name: "signals through the client", script: `run --name c bb sh -c 'trap "echo got; exit 7" INT; echo up; while :; do sleep 0.05; done' >out & pid=$!
		await 'grep -q up out'; p kill -s INT c; wait $pid; echo $?; cat out; rm out`, want: "c\n7\nup\ngot"},
	{name: "kill of a stopped container", script: `quiet run --name c bb true; try p kill c; try p stop c; try p pause c; try p exec c true`, want: "~status 125", err: "."},
	{name: "processes", script: `quiet run -d --name c bb sh -c 'sleep 100 & exec sleep 200'; await '[ $(p top c pid args | wc -l) = 3 ]'; p top c args user`, want: "~COMMAND +USER\nsleep 200 +root\nsleep 100 +root"},
	{name: "statistics", script: `quiet run -d --name c --memory 64m bb sleep 100; p stats --no-stream --format '{{.Name}} {{.PIDS}} {{.MemUsage}}' c | sed 's,^\(c [0-9]* \).*\( / .*\),\1x\2,'`, want: "~^c 1 x / 67.11MB$"},
	{name: "limits", v1: true, script: `quiet run -d --name c --memory 64m --memory-swap 128m --memory-reservation 32m --pids-limit 50 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 bb sleep 100
		cg c memory memory.limit_in_bytes; cg c memory memory.soft_limit_in_bytes; cg c pids pids.max; cg c cpu cpu.cfs_quota_us; cg c cpu cpu.shares; cg c cpuset cpuset.cpus; cg c devices devices.list | sort
		p exec c cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max`, want: "~^67108864\n33554432\n50\n50000\n512\n0\n(.*\n)+67108864\n50$"},
	{name: "process limit", script: `run --rm --pids-limit 6 bb sh -c 'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done' 2>&1 | grep -o "can.t fork"`, want: "can't fork"},
	{name: "update", v1: true, script: `quiet run -d --name c --memory 64m bb sleep 100; try p update --memory 80m --cpus 0.3 c; cg c memory memory.limit_in_bytes; cg c cpu cpu.cfs_quota_us`, want: "~status 0\n83886080\n30000$"},
	{name: "cgroup that cannot be", script: `try run --rm --cpuset-cpus 4000 bb true; try run --rm --memory 1k bb true; p ps -aq | wc -l`, want: "~^status 12\\d\nstatus 12\\d\n0$", err: "."},
	{name: "terminal", script: `pty "run -it --rm bb sh -c 'tty; until stty size 2>/dev/null | grep 33; do sleep 0.05; done; echo err >&2; [ -t 2 ] && echo tty'"; pty "run -it --rm bb sh -c 'exit 3'"; echo $?`, want: "/dev/pts/0\n33 77\nerr\ntty\n3"},
	{name: "terminal with a user and input", script: `printf 'id -un; tty; ls -l $(tty) | cut -d" " -f1; exit 5\n' | pty "run -it --rm --user user bb sh" | grep -aE '^(user|/dev|crw)'`, want: "user\n/dev/pts/0\ncrw--w----"},
	{name: "terminal detached", script: `quiet run -dt --name c bb sh -c 'tty; sleep 100'; await 'p logs c | grep -q pts'; p logs c; p exec -t c tty; p rm -f -t 0 c`, want: "/dev/pts/0\n/dev/pts/1\nc"},
	{name: "attach", script: `quiet run -di --name c bb sh -c 'read x; echo got $x; exit 6'; echo word | p attach c >/dev/null; p wait c; p logs c`, want: "6\ngot word"},
	{name: "checkpoint", script: `quiet run -d --name c bb sleep 100; try p container checkpoint c; is c Running true && echo runs`, better: "criu does not work on this kernel", want: "status 125\nruns", err: "(?i)criu|checkpoint"},
	{name: "twenty at once", script: `for i in $(seq 20); do run --rm bb sh -c "echo $i; exit $i" >>out & pids="$pids $!"; done; for pid in $pids; do wait $pid; echo $?; done >st; sort -n st | tr '\n' ' '; sort -n out | tr '\n' ' '; rm out st`,
		want: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"},
	{name: "pod", script: `quiet p pod create --name pod --network none --share net,ipc,uts,pid --cgroup-parent /$M --infra-image localhost/bb --infra-command 'sleep 1000'
		quiet p run -d --name a --pod pod bb sleep 100; p run --rm --pod pod bb sh -c 'for n in net ipc uts pid; do readlink /proc/self/ns/$n; done' >x
		p exec a sh -c 'for n in net ipc uts pid; do readlink /proc/self/ns/$n; done' | cmp - x && echo shared; rm x; p pod stop -t 0 pod >/dev/null 2>&1; p pod start pod >/dev/null; await 'p exec a true 2>/dev/null'; p exec a hostname; p pod rm -f -t 0 pod >/dev/null 2>&1`, want: "shared\npod"},
	{name: "health check", script: `quiet run -d --name c --health-cmd 'test -e /tmp/well' --health-interval disable --health-retries 1 bb sleep 100; try p healthcheck run c; p exec c touch /tmp/well; try p healthcheck run c`, want: "~status 1\nstatus 0$"},
	{name: "what a broken configuration leaves", script: `try run --rm --security-opt seccomp=/etc/passwd bb true; try run --rm --sysctl net.ipv4.no_such=1 bb true; try run --rm --ulimit nofile=9999999:9999999 bb true; p ps -aq | wc -l`,
		want: "~status 12\\d\n0$", err: "."},
}

func TestPodmanExec(t *testing.T) { podman(t, podmanExec) }

var podmanExec = []row{
	{name: "status", script: `quiet run -d --name c bb sleep 100; for a in true false nothing /etc/passwd "sh -c exit\ 9"; do eval try p exec c $a; done`, want: "status 0\nstatus 1\nstatus 127\nstatus 126\nstatus 9", err: "not found"},
	{name: "options", script: `quiet run -d --name c -e A=1 bb sleep 100; p exec -u user -w /tmp -e B=2 c sh -c 'id; pwd; echo $A $B $HOME'; p exec --user 7:8 c id; echo in | p exec -i c cat; p exec --privileged c grep CapEff /proc/self/status; p exec c grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status`,
		want: "~^uid=1000"},
	{name: "where it runs", v1: true, script: `quiet run -d --name c --memory 64m --pids-limit 20 bb sleep 100; p exec c sh -c 'cut -d: -f2,3 /proc/self/cgroup; cat /proc/1/cgroup | cut -d: -f2,3; for n in pid net ipc uts mnt; do [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] && echo $n; done; ls /proc/self/fd; cat /proc/self/limits'`, want: "~memory:"},
	{name: "detached", script: `quiet run -d --name c bb sleep 100; p exec -d c sh -c 'echo did >/tmp/f'; await 'p exec c test -s /tmp/f'; p exec c cat /tmp/f`, want: "~did$"},
	{name: "terminal", script: `quiet run -d --name c bb sleep 100; pty "p exec -it c sh -c 'tty; until stty size 2>/dev/null | grep 33; do sleep 0.05; done; exit 4'"; echo $?; p exec -t -u user c sh -c 'ls -l $(tty) | cut -c1-10; echo x >/dev/tty'`, want: "~^/dev/pts/0\n33 77\n4\n"},
	{name: "killed with the container", script: `quiet run -d --name c bb sleep 100; p exec c sh -c 'echo up; sleep 100' >out & pid=$!; await 'grep -q up out'; quiet p kill c; wait $pid; echo $?; rm out`, want: "137"},
	{name: "killed alone", script: `quiet run -d --name c bb sleep 100; p exec c sh -c 'kill -9 $$'; echo $?; p exec c sh -c 'kill -TERM $$'; echo $?; is c Running true && echo runs`, want: "137\n143\nruns"},
	{name: "children that stay", script: `quiet run -d --name c bb sleep 100; p exec c sh -c 'sleep 300 >/dev/null 2>&1 & echo started'; await 'p top c args | grep -q "sleep 300"'; p stop -t 0 c`, want: "started\nc"},
	{name: "many", script: `quiet run -d --name c bb sleep 100; for i in $(seq 15); do p exec c sh -c "echo $i; exit $i" >>out & pids="$pids $!"; done; for pid in $pids; do wait $pid; echo $?; done >st; tr '\n' ' ' <st; sort -n out | tr '\n' ' '; rm out st
		p inspect -f '{{len .ExecIDs}}' c; p top c pid | wc -l`, want: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 0\n2"},
	{name: "in a user namespace", script: `quiet run -d --name c --uidmap 0:100000:2000 bb sleep 100; p exec c sh -c 'id -u; cat /proc/self/uid_map | tr -s " "; touch /f && stat -c %u /f'; p exec -u user c id`, want: "~^0\n"},
	{name: "without capabilities", script: `quiet run -d --name c --cap-drop all --read-only --security-opt no-new-privileges bb sleep 100; p exec c sh -c 'grep -E "^(CapEff|CapBnd|NoNew)" /proc/self/status; touch /x 2>&1'`, want: "~^CapEff:\t0000000000000000\n"},
}
