package engine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// etcFiles writes the files of /etc that tell a container about its host and network into the container's directory, and
// returns the mounts that put them in place. An image's own resolv.conf stays; its hosts and hostname are replaced.
func (c *Container) etcFiles(root *os.File, o *RunOptions) ([]specs.Mount, error) {
	host := o.Network == "host"
	hosts, err := hostsFile(o.Hostname, host)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"hostname": []byte(o.Hostname + "\n"), "hosts": hosts}
	st, err := fsat.StatInRoot(root, "etc/resolv.conf")
	if err != nil || !st.IsRegular() || st.Size == 0 {
		if files["resolv.conf"], err = resolvFile(host); err != nil {
			return nil, err
		}
	}
	options := []string{"rbind", "rprivate"}
	if o.ReadOnly {
		options = append(options, "ro")
	}
	var mounts []specs.Mount
	for _, name := range []string{"resolv.conf", "hostname", "hosts"} {
		data, ok := files[name]
		if !ok || covered(o.Volumes, "/etc/"+name) {
			continue
		}
		if err := os.WriteFile(c.path(name), data, 0o644); err != nil { //nolint:gosec // every user in the container reads it
			return nil, err
		}
		if err := os.Chmod(c.path(name), 0o644); err != nil {
			return nil, err
		}
		mounts = append(mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: c.path(name), Options: options})
	}
	return mounts, nil
}

// covered reports whether the user mounts something on dst, which then wins.
func covered(volumes []Volume, dst string) bool {
	for _, v := range volumes {
		if v.Destination == dst {
			return true
		}
	}
	return false
}

func hostsFile(hostname string, host bool) ([]byte, error) {
	if host {
		data, err := os.ReadFile("/etc/hosts")
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return []byte("127.0.0.1\tlocalhost " + hostname + "\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n"), nil
}

// resolvFile returns the host's resolv.conf for a container: as it is in the host's network, else without name servers on
// loopback addresses, which nobody but the host reaches. Where a local resolver is the only one, the servers that it asks
// are taken, as systemd-resolved lists them. There is no public server to fall back to: which one to trust is the user's.
func resolvFile(host bool) ([]byte, error) {
	data, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil || host {
		return data, err
	}
	filtered, servers := withoutLoopback(data)
	if servers > 0 || len(filtered) == len(data) {
		return filtered, nil
	}
	upstream, err := os.ReadFile("/run/systemd/resolve/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return filtered, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the local resolver's servers: %w", err)
	}
	filtered, _ = withoutLoopback(upstream)
	return filtered, nil
}

// withoutLoopback leaves out nameserver lines with loopback addresses and counts those that stay.
func withoutLoopback(data []byte) (out []byte, servers int) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 1 && fields[0] == "nameserver" {
			if addr, err := netip.ParseAddr(fields[1]); err == nil && addr.IsLoopback() {
				continue
			}
			servers++
		}
		out = append(append(out, lines.Bytes()...), '\n')
	}
	return out, servers
}
