package lifecycle

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ownProcess is a container's process with every property that an exec can take over.
func ownProcess() *specs.Process {
	oom, umask := 300, uint32(0o77)
	return &specs.Process{Args: []string{"init"}, Env: []string{"A=1"}, Cwd: "/own", SelinuxLabel: "own_t", ApparmorProfile: "own", NoNewPrivileges: true,
		User: specs.User{UID: 7, GID: 8, Umask: &umask}, OOMScoreAdj: &oom, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}},
		Rlimits:   []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 1}},
		Scheduler: &specs.Scheduler{Policy: specs.SchedBatch}, IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_IDLE},
		ExecCPUAffinity: &specs.CPUAffinity{Final: "0"}}
}

func execFile(t *testing.T, own *specs.Process, document string) *specs.Process {
	t.Helper()
	path := filepath.Join(t.TempDir(), "process.json")
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := execProcess(&specs.Spec{Process: own}, &ExecOptions{ProcessFile: path})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExecInheritsConfinement(t *testing.T) {
	want := ownProcess()
	want.Args, want.Env, want.Cwd, want.User.UID, want.User.GID = []string{"true"}, nil, "/", 0, 0
	if got := execFile(t, ownProcess(), `{"args":["true"],"cwd":"/"}`); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := execFile(t, nil, `{"args":["true"],"cwd":"/"}`); got.Capabilities != nil || got.NoNewPrivileges {
		t.Errorf("without a process of the container: %+v", got)
	}
}

func TestExecSaysItsOwn(t *testing.T) {
	got := execFile(t, ownProcess(), `{"args":["true"],"cwd":"/","selinuxLabel":"other_t","apparmorProfile":"other","noNewPrivileges":false,
		"capabilities":{},"oomScoreAdj":0,"user":{"uid":1,"gid":2,"umask":18},"rlimits":[{"type":"RLIMIT_CORE","soft":2,"hard":2}],
		"scheduler":{"policy":"SCHED_OTHER"},"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":1},"execCPUAffinity":{"final":"1"}}`)
	oom, umask := 0, uint32(18)
	want := &specs.Process{Args: []string{"true"}, Cwd: "/", SelinuxLabel: "other_t", ApparmorProfile: "other",
		NoNewPrivileges: true, // nothing in the container may gain privileges
		User:            specs.User{UID: 1, GID: 2, Umask: &umask}, OOMScoreAdj: &oom, Capabilities: &specs.LinuxCapabilities{},
		Rlimits:   []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 2, Hard: 2}},
		Scheduler: &specs.Scheduler{Policy: specs.SchedOther}, IOPriority: &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 1},
		ExecCPUAffinity: &specs.CPUAffinity{Final: "1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
