package clients

import (
	"sync"
	"testing"
)

// buildahShell has b (buildah of the side) and bin (a working container).
const buildahShell = `
b() { buildah --root $D/buildah --runroot $D/buildah.run --storage-driver vfs "$@"; }
brun() { b run --isolation oci --runtime $R --network none "$@"; }
from() { b from -q --ulimit nofile=1024:1024 --cgroup-parent /$M/b --name w localhost/bb >/dev/null; }
`

const buildahConf = `
quiet p save -q --format oci-archive -o bb.oci localhost/bb:latest
quiet b pull -q oci-archive:$D/bb.oci
b tag $(b images -q | head -1) localhost/bb
`

var buildahOnce sync.Once

func TestBuildah(t *testing.T) { buildah(t, buildahRows) }

func buildah(t *testing.T, rows []row) {
	t.Helper()
	w := sides(t, "podman", "conmon", "buildah")
	podmanOnce.Do(func() { prepare(t, w, podmanConf) })
	buildahOnce.Do(func() { prepare(t, w, buildahConf) })
	compare(t, w, "b rm -a >/dev/null", rows)
}

var buildahRows = []row{
	{name: "status and streams", script: `from; for a in true false nothing "sh -c exit\ 7"; do eval try brun w $a; done; brun w sh -c 'echo out; echo err >&2'`, want: "~^status 0\nstatus 1\n", err: "(?s)SENTENCE.*err$"},
	{name: "options", script: `from; mkdir -p v; echo host >v/f; brun --user 5:6 --workingdir /tmp --env A=1 --hostname here --cap-add CAP_NET_ADMIN --cap-drop CAP_CHOWN -v $D/v:/v:ro w sh -c 'id; pwd; echo $A; hostname; grep Cap /proc/self/status; cat /v/f; touch /v/g 2>&1 || true'; rm -r v`,
		want: "~^uid=5 gid=6.*\n/tmp\n1\nhere\n"},
	{name: "a step of a build", script: `from; brun w sh -c 'echo built >/built'; brun w cat /built; b config --cmd '/bin/cat /built' w; b inspect --format '{{.OCIv1.Config.Cmd}}' w`, want: "built\n[/bin/cat /built]"},
	{name: "a build", script: `mkdir -p ctx; printf 'FROM localhost/bb\nRUN echo one >/f && id -u\nRUN ["/bin/cat", "/f"]\nRUN exit 3\n' >ctx/Dockerfile; b bud --isolation oci --runtime $R --network none --ulimit nofile=1024:1024 --cgroup-parent /$M/b -q ctx; echo $?; rm -r ctx`,
		want: "3", err: "exit status 3"},
	{name: "terminal", script: `from; pty "brun -t w sh -c 'tty; until stty size 2>/dev/null | grep 33; do sleep 0.05; done; exit 4'"; echo $?`,
		want: "/dev/pts/0\n33 77\nError: while running runtime: exit status 4\n4"},
}
