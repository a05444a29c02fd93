package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// FindRuntime finds the OCI runtime that name means: a path if there is a slash in it, else a program beside this one, else
// one in PATH. No name means tare-runtime.
func FindRuntime(name string) (string, error) {
	if name == "" {
		name = "tare-runtime"
	}
	if strings.Contains(name, "/") {
		path, err := filepath.Abs(name)
		if err == nil {
			_, err = exec.LookPath(path)
		}
		if err != nil {
			return "", fmt.Errorf("find runtime: %w", err)
		}
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := exec.LookPath(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find runtime %s beside tare or in PATH: %w", name, exec.ErrNotFound)
	}
	return path, nil
}

// command makes a call of the container's runtime. Each container has its own state directory of the runtime, so that
// nothing of it stays when the container's directory is removed.
func (c *Container) command(args ...string) *exec.Cmd {
	return exec.Command(c.record.Runtime, append([]string{
		"--root", c.path("runtime"), "--log", c.path("runtime.log"), "--log-format", "json"}, args...)...)
}

// known reports whether the runtime has state of the container: it has none before and after it runs.
func (c *Container) known() bool {
	_, err := os.Lstat(c.path("runtime", c.record.ID))
	return err == nil
}

// deleteFromRuntime kills what runs of the container, if anything does, and makes the runtime forget it.
func (c *Container) deleteFromRuntime() error {
	if !c.known() || c.record.Boot != bootID() {
		return nil
	}
	return c.quietly("delete", "--force", c.record.ID)
}

// kill ends the container's processes.
func (c *Container) kill() error {
	return c.quietly("kill", c.record.ID, "KILL")
}

// quietly calls the runtime and turns what it says into an error.
func (c *Container) quietly(args ...string) error {
	cmd := c.command(args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C must not stop a clean-up
	if err := cmd.Run(); err != nil {
		msg, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(c.record.Runtime), args[0], err, msg)
	}
	return nil
}

// complaint returns the last error in the runtime's log, without the runtime's wrapping; empty if there is none.
func (c *Container) complaint() (string, error) {
	data, err := os.ReadFile(c.path("runtime.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	last := ""
	for line := range bytes.Lines(data) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) != nil {
			continue
		}
		switch entry.Level {
		case "error", "fatal", "panic":
			last = entry.Msg
		}
	}
	return last, nil
}

// startFailure turns a runtime's complaint into docker's exit status: 127 for a program that is not there, 126 for one that
// cannot be run, 125 for all else. The texts are those of runc, crun and tare-runtime, which callers of runtimes rely on.
func startFailure(complaint string) int {
	complaint = strings.ToLower(complaint)
	has := func(s string) bool { return strings.Contains(complaint, s) }
	switch {
	case has("executable file") && has("not found"):
		return 127
	case !has("exec") || has("mount"):
		return 125
	case has("no such file or directory"):
		return 127
	case has("permission denied"), has("exec format error"), has("is a directory"), has("open executable: operation not permitted"):
		return 126
	}
	return 125
}
