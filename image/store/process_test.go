package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tare-oci/tare/image/content"
)

// TestMain makes the test binary a process that uses a store: STORE_CHILD says how, STORE_DIR which.
func TestMain(m *testing.M) {
	child, ok := map[string]func(dir string) error{"download": childDownload, "churn": childChurn, "full": childFull}[os.Getenv("STORE_CHILD")]
	if !ok {
		os.Exit(m.Run())
	}
	if err := child(os.Getenv("STORE_DIR")); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func childCommand(t testing.TB, what, dir string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), append(env, "STORE_CHILD="+what, "STORE_DIR="+dir)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// childDownload "downloads" one blob when its standard input ends.
func childDownload(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	data := noise(7, 1<<20)
	io.Copy(io.Discard, os.Stdin)
	in, err := s.Ingest(ctx, blob(data))
	if errors.Is(err, content.ErrExists) {
		r, err := s.Fetch(ctx, blob(data), 0)
		if err != nil {
			return err
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			return fmt.Errorf("read %d bytes, %w", len(got), err)
		}
		fmt.Println("found")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Println("downloads from", in.Offset())
	for rest := data[in.Offset():]; len(rest) > 0; rest = rest[min(len(rest), 64<<10):] {
		if os.Getenv("STORE_DIE") != "" && in.Offset() > 500_000 {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		if _, err := in.Write(rest[:min(len(rest), 64<<10)]); err != nil {
			return err
		}
	}
	return in.Commit()
}

func TestOneDownloadPerDigest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	gate, open, err := os.Pipe()
	must(t, err)
	defer gate.Close()
	var outs [10]bytes.Buffer
	var cmds [10]*exec.Cmd
	for i := range cmds {
		var env []string
		if i < 2 {
			env = []string{"STORE_DIE=1"} // whoever waits for one that is killed goes on where it stopped
		}
		cmds[i] = childCommand(t, "download", dir, env...)
		cmds[i].Stdin, cmds[i].Stdout = gate, &outs[i]
		must(t, cmds[i].Start())
	}
	open.Close()
	fromStart, finished, killed := 0, 0, 0
	for i, cmd := range cmds {
		err := cmd.Wait()
		out := outs[i].String()
		fromStart += strings.Count(out, "downloads from 0\n")
		switch {
		case err == nil && strings.HasPrefix(out, "downloads"):
			finished++
		case err == nil && out == "found\n":
		case i < 2 && strings.HasPrefix(out, "downloads"):
			killed++
		default:
			t.Errorf("child %d: %v, %s", i, err, out)
		}
	}
	// Only what was killed after some bytes is begun by somebody else, and at its offset.
	if finished != 1 || fromStart != 1 {
		t.Errorf("%d finished downloads, %d from the first byte, %d killed: want one, one", finished, fromStart, killed)
	}
}

// childChurn stores, names, removes and prunes images for ever, and says what it has done.
func childChurn(dir string) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	who := os.Getenv("STORE_WHO")
	seed, err := strconv.Atoi(os.Getenv("STORE_SEED"))
	if err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	say := func(words ...any) { fmt.Println(words...) }
	say("ready")
	t := &testing.T{}
	for {
		n := r.IntN(6)
		name := fmt.Sprintf("%s-%d", who, r.IntN(4))
		switch r.IntN(6) {
		case 0, 1, 2:
			f, m := testImage(t, n)
			say("begins", name)
			if err := pushFiles(ctx, s, f, m); err != nil {
				return err
			}
			if err := s.Tag(ctx, m, name); err != nil {
				return err
			}
			say("tagged", name, m.Digest)
		case 3:
			say("begins", name)
			if _, err := s.Untag(ctx, name); err != nil && !errors.Is(err, content.ErrNotFound) {
				return err
			}
			say("removed", name)
		case 4:
			if _, err := s.Prune(ctx, PruneOptions{Partial: time.Nanosecond}); err != nil {
				return err
			}
		case 5:
			b, err := s.NewBlob(ctx, "")
			if err == nil {
				b.Write(noise(uint64(n), 1000))
				_, err = b.Commit("a/b")
			}
			if err == nil {
				err = s.SaveLease(ctx, LeaseInfo{Kind: "container", ID: who, Digests: []digest.Digest{digest.FromString(who)}})
			}
			if err != nil {
				return err
			}
		}
	}
}

// Two processes churn and are killed at random moments: every time the store is whole, and every name is what they said.
func TestKillAtAnyMoment(t *testing.T) {
	rounds := 100 // of two processes
	if testing.Short() {
		rounds = 10
	}
	dir := filepath.Join(t.TempDir(), "store")
	open(t, dir)
	state := map[string]string{} // of names; "?": a change was under way
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for round := range rounds {
		var cmds [2]*exec.Cmd
		var outs [2]*bufio.Reader
		for i := range cmds {
			cmds[i] = childCommand(t, "churn", dir, fmt.Sprint("STORE_WHO=w", i), fmt.Sprint("STORE_SEED=", r.Int32()))
			pipe, err := cmds[i].StdoutPipe()
			must(t, err)
			must(t, cmds[i].Start())
			outs[i] = bufio.NewReader(pipe)
		}
		for i := range cmds {
			if line, err := outs[i].ReadString('\n'); line != "ready\n" {
				t.Fatalf("round %d: %q, %v", round, line, err)
			}
		}
		time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond) // the random moment
		for i := range cmds {
			must(t, cmds[i].Process.Kill())
		}
		for i := range cmds {
			rest, _ := io.ReadAll(outs[i])
			cmds[i].Wait()
			for line := range strings.Lines(string(rest)) {
				words := strings.Fields(line)
				switch {
				case len(words) == 2 && words[0] == "begins" && strings.HasSuffix(line, "\n"):
					state[words[1]] = "?"
				case len(words) == 3 && words[0] == "tagged":
					state[words[1]] = words[2]
				case len(words) == 2 && words[0] == "removed":
					state[words[1]] = ""
				default:
					t.Fatalf("round %d: %s", round, line)
				}
			}
		}
		s := open(t, dir)
		if report := fsck(t, s, FsckOptions{}); !report.OK() {
			t.Fatalf("round %d: %+v", round, report.Problems)
		}
		for name, want := range state {
			d, err := s.Resolve(ctx, name)
			if err != nil && !errors.Is(err, content.ErrNotFound) || want != "?" && d.Digest.String() != want {
				t.Fatalf("round %d: %s is %q, %v, want %q", round, name, d.Digest, err, want)
			}
		}
		s.Close()
	}
	s := open(t, dir)
	prune(t, s, PruneOptions{Partial: time.Nanosecond})
	report := fsck(t, s, FsckOptions{Repair: true})
	if !report.OK() {
		t.Errorf("%+v", report)
	}
	addImage(t, s, 1, "last")
	readByOthers(t, s)
}

// readByOthers lets umoci and skopeo read all images.
func readByOthers(t *testing.T, s *Store) {
	list, err := s.List(ctx)
	must(t, err)
	for _, tool := range []string{"skopeo", "umoci"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	out, err := exec.Command("umoci", "ls", "--layout", s.Dir()).CombinedOutput()
	if err != nil {
		t.Errorf("umoci ls: %v\n%s", err, out)
	}
	for _, n := range list[max(0, len(list)-3):] {
		if !strings.Contains(string(out), n.Name+"\n") {
			t.Errorf("umoci does not list %s: %s", n.Name, out)
		}
		out, err := exec.Command("skopeo", "inspect", "oci:"+s.Dir()+":"+n.Name).CombinedOutput()
		if err != nil || !strings.Contains(string(out), n.Descriptor.Digest.String()) {
			t.Errorf("skopeo inspect %s: %v\n%s", n.Name, err, out)
		}
		out, err = exec.Command("skopeo", "copy", "--insecure-policy", "oci:"+s.Dir()+":"+n.Name, "dir:"+t.TempDir()).CombinedOutput()
		if err != nil {
			t.Errorf("skopeo copy %s: %v\n%s", n.Name, err, out)
		}
	}
}

// What skopeo copies into the store is there, beside what was.
func TestWrittenBySkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	s := newStore(t)
	mine := addImage(t, s, 1, "mine")
	out, err := exec.Command("skopeo", "copy", "--insecure-policy", "oci:"+s.Dir()+":docker.io/library/mine:latest", "oci:"+s.Dir()+":theirs").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if d, err := s.Resolve(ctx, "theirs"); err != nil || d.Digest != mine.Digest {
		t.Errorf("%v, %v", d, err)
	}
	if d, err := s.Resolve(ctx, "mine"); err != nil || d.Digest != mine.Digest {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := s.Untag(ctx, "mine"); err != nil {
		t.Fatal(err)
	}
	if r := prune(t, s, PruneOptions{}); len(r.Blobs) != 0 {
		t.Errorf("%+v", r)
	}
	if r := fsck(t, s, FsckOptions{Repair: true}); !r.OK() {
		t.Errorf("%+v", r)
	}
}
