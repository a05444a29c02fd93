package vm

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBootLimit: a machine that does not come to its first program is ended, one that does runs on.
func TestBootLimit(t *testing.T) {
	console := filepath.Join(t.TempDir(), "console")
	sh := func(script string) (string, error) {
		said, err := runBooted(context.Background(), console, exec.Command("sh", "-c", script, "sh", console), time.After(time.Second))
		return string(said), err
	}
	if _, err := sh("echo firmware >$1; exec sleep 1000"); err != errHung {
		t.Errorf("a machine that hangs: %v", err)
	}
	said, err := sh("echo " + bootMarker + " >$1; sleep 1.5; echo end")
	if err != nil || strings.TrimSpace(said) != "end" {
		t.Errorf("one that boots: %q, %v", said, err)
	}
}
