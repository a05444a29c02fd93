package lifecycle

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/unixsock"
	"github.com/tare-oci/tare/runtime/launch"
	"github.com/tare-oci/tare/runtime/state"
)

// forwardListener has the seccomp listener of a child sent to the agent of the container's profile: one connection with one
// ContainerProcessState (config-linux.md, "The Container Process State"), in whose first message the descriptor is.
// status is creating for the container's first process and running for exec, init the pid of the former.
func forwardListener(child *launch.Child, s *specs.Spec, c *state.Container, status state.Status, init int) {
	child.OnListener = func(listener *os.File) error {
		profile := s.Linux.Seccomp
		data, err := json.Marshal(&specs.ContainerProcessState{
			Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: child.PID, Metadata: profile.ListenerMetadata,
			State: *c.OCI(status, init),
		})
		if err != nil {
			return fmt.Errorf("encode state for the seccomp agent: %w", err)
		}
		if err := sendListener(agentPath(c.Bundle, profile.ListenerPath), data, listener); err != nil {
			return fmt.Errorf("send the listener to the seccomp agent: %w", err)
		}
		return nil
	}
}

// agentPath is listenerPath, relative to the bundle as all paths of the configuration; a name in the abstract namespace stays.
func agentPath(bundle, path string) string {
	if filepath.IsAbs(path) || strings.HasPrefix(path, "@") {
		return path
	}
	return filepath.Join(bundle, path)
}

func sendListener(path string, data []byte, listener *os.File) error {
	sock, err := unixsock.Dial(path)
	if err != nil {
		return err
	}
	defer sock.Close()
	return unixsock.SendFD(sock, data, int(listener.Fd()))
}
