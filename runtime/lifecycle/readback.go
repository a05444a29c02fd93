package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/plan"
)

// Capabilities by which a process changes what is compared.
const (
	capSetGID      = 1 << 6
	capSetUID      = 1 << 7
	capSysResource = 1 << 24
)

// namespaceFiles are the files of /proc/PID/ns.
var namespaceFiles = [...]string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}

// template is what a container of the configuration is, read from one that waits for start and from the plan that made it.
type template struct {
	child  *launch.Child
	mounts *mountTable

	cgroups        string            // /proc/PID/cgroup
	uidMap, gidMap string            // /proc/PID/uid_map, gid_map
	namespaces     map[string]string // file → "pid:[4026531836]"
	own            map[string]string // the runtime's
	joined         map[string]bool   // files of namespaces that exist without the container
	oomScore       int

	uid, gid    uint32 // as the runtime sees them
	groups      []uint32
	caps        plan.Capabilities
	bounding    uint64
	noNewPrivs  bool
	seccomp     []byte // the program; nil: none
	labelModule string // "apparmor", "selinux"; empty: no label is set
	label       string
	rlimits     []specs.POSIXRlimit
}

// read learns what there is to know of the waiting child of plan p.
func (t *template) read(p *plan.Plan, s *specs.Spec) (err error) {
	child := t.child
	t.bounding, t.joined, t.rlimits = ^uint64(0), map[string]bool{}, s.Process.Rlimits
	if t.mounts, err = readMounts(child.PID); err != nil {
		return err
	}
	if err := t.mounts.checkKeys(); err != nil {
		return err
	}
	for _, f := range []struct {
		file string
		to   *string
	}{{"cgroup", &t.cgroups}, {"uid_map", &t.uidMap}, {"gid_map", &t.gidMap}} {
		if *f.to, err = readProc(child.PID, f.file); err != nil {
			return err
		}
	}
	if t.oomScore, err = readOOMScore(child.PID); err != nil {
		return err
	}
	if t.namespaces, err = readNamespaces(strconv.Itoa(child.PID)); err != nil {
		return err
	}
	if t.own, err = readNamespaces("self"); err != nil {
		return err
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Path != "" {
			t.joined[namespaceFile(ns.Type)] = true
		}
	}
	return t.readPlan(p)
}

// namespaceFile is the file of /proc/PID/ns for a type of config.json.
func namespaceFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// readPlan takes the credentials from the plan's steps: the template has not taken all of them yet while it waits.
func (t *template) readPlan(p *plan.Plan) error {
	for _, op := range p.Child {
		switch o := op.(type) {
		case plan.SetUser:
			t.uid, t.gid, t.groups = o.UID, o.GID, o.Groups
		case plan.Capabilities:
			t.caps = o
		case plan.BoundingSet:
			t.bounding = o.Keep
		case plan.NoNewPrivileges:
			t.noNewPrivs = true
		case plan.Seccomp:
			t.seccomp = o.Program
		case plan.Label:
			if filepath.Base(o.File) == "exec" {
				t.labelModule, t.label = o.Module, strings.TrimPrefix(o.Value, "exec ")
			}
		}
	}
	var err error
	if t.uid, err = hostID(t.uid, t.uidMap); err != nil {
		return err
	}
	if t.gid, err = hostID(t.gid, t.gidMap); err != nil {
		return err
	}
	for i := range t.groups {
		if t.groups[i], err = hostID(t.groups[i], t.gidMap); err != nil {
			return err
		}
	}
	return nil
}

// setLabel takes a label in criu's form, TYPE:NAME.
func (t *template) setLabel(profile string) error {
	module, label, ok := strings.Cut(profile, ":")
	if !ok || module != "apparmor" && module != "selinux" || label == "" {
		return fmt.Errorf("invalid --lsm-profile %q: want apparmor:NAME or selinux:LABEL", profile)
	}
	t.labelModule, t.label = module, label
	return nil
}

// lsmProfile is the label in criu's form; empty: none.
func (t *template) lsmProfile() string {
	if t.labelModule == "" {
		return ""
	}
	return t.labelModule + ":" + t.label
}

// hostID translates an id of the container by the text of its map.
func hostID(id uint32, table string) (uint32, error) {
	for line := range strings.Lines(table) {
		var inside, outside, count uint64
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && uint64(id) >= inside && uint64(id) < inside+count {
			return uint32(outside + uint64(id) - inside), nil
		}
	}
	return 0, fmt.Errorf("id %d is not mapped", id)
}

// errUnlike begins the sentence about a restored process that is not as config.json says.
var errUnlike = errors.New("the restored container is not as config.json says")

// verify compares the stopped processes pids, of which init is the first, with the template. The rule is that no process may have
// what one that the configuration starts could not have by its own means.
func (t *template) verify(init int, pids []int) error {
	mounts, err := readMounts(init)
	if err != nil {
		return err
	}
	if err := t.mounts.compare(mounts); err != nil {
		return fmt.Errorf("%w: %w", errUnlike, err)
	}
	first, err := readNamespaces(strconv.Itoa(init))
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := t.verifyProcess(pid, first); err != nil {
			return fmt.Errorf("%w: process %d: %w", errUnlike, pid, err)
		}
	}
	return nil
}

// verifyProcess compares one process whose container's first process is in the namespaces first.
func (t *template) verifyProcess(pid int, first map[string]string) error {
	ns, err := readNamespaces(strconv.Itoa(pid))
	if err != nil {
		return err
	}
	for _, file := range namespaceFiles {
		if err := t.verifyNamespace(file, ns[file], first[file]); err != nil {
			return err
		}
	}
	for _, f := range []struct{ file, want string }{{"uid_map", t.uidMap}, {"gid_map", t.gidMap}} {
		if got, err := readProc(pid, f.file); err != nil {
			return err
		} else if got != f.want {
			return fmt.Errorf("%s is %q, not %q", f.file, strings.TrimSpace(got), strings.TrimSpace(f.want))
		}
	}
	got, err := readProc(pid, "cgroup")
	if err != nil {
		return err
	}
	if err := sameCgroups(got, t.cgroups); err != nil {
		return err
	}
	if score, err := readOOMScore(pid); err != nil {
		return err
	} else if score < t.oomScore && t.caps.Permitted&capSysResource == 0 {
		return fmt.Errorf("oom_score_adj is %d, lower than %d", score, t.oomScore)
	}
	if err := t.verifyLimits(pid); err != nil {
		return err
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		if err := t.verifyThread(pid, thread.Name()); err != nil {
			return err
		}
	}
	return nil
}

// verifyNamespace checks one namespace of a process: ns is its own, first that of the container's first process.
func (t *template) verifyNamespace(file, ns, first string) error {
	want, own := t.namespaces[file], t.own[file]
	switch {
	case file == "time" && ns != own:
		return nil // criu gives clocks that go on where they were
	case (file == "mnt" || file == "user") && ns != first:
		return fmt.Errorf("it has a %s namespace of its own", file)
	case t.joined[file] && ns != want:
		return fmt.Errorf("%s namespace is %s, not %s", file, ns, want)
	case want != own && ns == own:
		return fmt.Errorf("it is in the host's %s namespace", file)
	case want == own && first != own && !t.joined[file]:
		return fmt.Errorf("%s namespace is %s, not the host's", file, first)
	}
	return nil
}

// verifyThread compares the credentials of one thread.
func (t *template) verifyThread(pid int, tid string) error {
	text, err := readProc(pid, "task/"+tid+"/status")
	if err != nil {
		return err
	}
	s, err := parseStatus(text)
	if err != nil {
		return err
	}
	if err := t.verifyIDs(s); err != nil {
		return err
	}
	if err := t.verifyCaps(s); err != nil {
		return err
	}
	switch {
	case t.noNewPrivs && !s.noNewPrivs:
		return errors.New("no_new_privs is not set")
	case t.seccomp != nil && s.seccomp != 2:
		return fmt.Errorf("seccomp mode is %d, not 2 (filter)", s.seccomp)
	}
	return t.verifyLabel(pid, tid)
}

// verifyIDs allows other ids only where the configured process may take them itself.
func (t *template) verifyIDs(s *status) error {
	for _, id := range s.uids {
		if id != t.uid && t.caps.Permitted&capSetUID == 0 {
			return fmt.Errorf("user id is %d, not %d", id, t.uid)
		}
	}
	if t.caps.Permitted&capSetGID != 0 {
		return nil
	}
	for _, id := range s.gids {
		if id != t.gid {
			return fmt.Errorf("group id is %d, not %d", id, t.gid)
		}
	}
	for _, id := range s.groups {
		if id != t.gid && !slices.Contains(t.groups, id) {
			return fmt.Errorf("it is a member of group %d", id)
		}
	}
	return nil
}

func (t *template) verifyCaps(s *status) error {
	allowed := t.caps.Permitted | t.caps.Ambient
	if t.uid == 0 && !t.noNewPrivs {
		allowed |= t.bounding // a program that root executes gets them
	}
	for _, c := range []struct {
		name      string
		got, most uint64
	}{
		{"bounding", s.bounding, t.bounding}, {"permitted", s.permitted, allowed}, {"effective", s.effective, allowed},
		{"inheritable", s.inheritable, allowed | t.caps.Inheritable}, {"ambient", s.ambient, allowed},
	} {
		if more := c.got &^ c.most; more != 0 {
			return fmt.Errorf("%s capabilities %016x are more than %016x", c.name, c.got, c.most)
		}
	}
	return nil
}

// verifyLabel compares the label of a security module where the configuration has one.
func (t *template) verifyLabel(pid int, tid string) error {
	if t.labelModule == "" {
		return nil
	}
	file := "task/" + tid + "/attr/current"
	if t.labelModule == "apparmor" {
		if text, err := readProc(pid, "task/"+tid+"/attr/apparmor/current"); err == nil {
			return sameLabel(text, t.label)
		}
	}
	text, err := readProc(pid, file)
	if err != nil {
		return err
	}
	return sameLabel(text, t.label)
}

// sameLabel compares what the kernel says with the label; AppArmor adds the profile's mode.
func sameLabel(got, want string) error {
	got = strings.TrimRight(got, "\n\x00")
	if name, _, ok := strings.Cut(got, " ("); ok {
		got = name
	}
	if got != want {
		return fmt.Errorf("security label is %q, not %q", got, want)
	}
	return nil
}

// verifyLimits compares the hard limits that the configuration names.
func (t *template) verifyLimits(pid int) error {
	if len(t.rlimits) == 0 || t.caps.Permitted&capSysResource != 0 {
		return nil
	}
	text, err := readProc(pid, "limits")
	if err != nil {
		return err
	}
	for _, l := range t.rlimits {
		if hard, ok := hardLimit(text, l.Type); ok && hard > l.Hard {
			return fmt.Errorf("hard limit %s is %d, more than %d", l.Type, hard, l.Hard)
		}
	}
	return nil
}
