// Package peers is the black-box suite of round trips: images go from tare, tared and everybody else's clients and
// registries to everybody else, and are the same bytes at the end.
package peers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var suiteDir, binDir string

func TestMain(m *testing.M) { os.Exit(suite(m)) }

func suite(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Println("the peers' suite needs root")
		return 1
	}
	cmd := exec.Command("make", "-s", "build")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Printf("make build: %v\n%s", err, out)
		return 1
	}
	var paths [2]string
	for i, p := range []string{"../../bin", "../../.cache/bin"} {
		var err error
		if paths[i], err = filepath.Abs(p); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	binDir = paths[0]
	os.Setenv("PATH", paths[0]+":"+paths[1]+":"+os.Getenv("PATH"))
	var err error
	if suiteDir, err = os.MkdirTemp("/var/tmp", "tare-peers-"); err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(suiteDir)
	// No client finds credentials or settings of whoever runs the tests.
	for name, value := range map[string]string{"HOME": suiteDir, "XDG_RUNTIME_DIR": filepath.Join(suiteDir, "run"), "DOCKER_CONFIG": filepath.Join(suiteDir, ".docker")} {
		os.Setenv(name, value)
	}
	os.Unsetenv("XDG_CONFIG_HOME")
	err = os.Mkdir(os.Getenv("DOCKER_CONFIG"), 0o700)
	if err == nil { // podman wants it to be there
		err = os.WriteFile(filepath.Join(suiteDir, ".docker/config.json"), []byte("{}"), 0o600)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer stopAll()
	return m.Run()
}

// need skips the test if a program is not there.
func need(t *testing.T, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			t.Skipf("%s is not there: scripts/deps.sh and scripts/peers.sh say why", n)
		}
	}
}

// do runs a program and returns its standard output; it fails the test with what the program said.
func do(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := try(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func try(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(argv, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

var stops []func()

func stopAll() {
	for _, stop := range slices.Backward(stops) {
		stop()
	}
}

// serve starts a program that lives until the suite ends, and waits until something listens at the address.
func serve(t *testing.T, address string, argv ...string) {
	t.Helper()
	var log bytes.Buffer
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = &log, &log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { c.Wait(); close(done) }()
	stops = append(stops, func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			fmt.Printf("%s did not end when it was told to\n", argv[0])
		}
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		<-done
	})
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	for deadline := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
			return
		}
		select {
		case <-done:
			t.Fatalf("%s ended:\n%s", argv[0], log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen at %s", argv[0], address)
		}
	}
}

// freePort returns an address of loopback at which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// registries that are compared, started once.
var started = map[string]string{}

// registry returns the address of tared or of Debian's docker-registry.
func registry(t *testing.T, name string) string {
	t.Helper()
	if a := started[name]; a != "" {
		return a
	}
	address := freePort(t)
	dir := filepath.Join(suiteDir, "registry-"+name)
	switch name {
	case "tared":
		serve(t, address, filepath.Join(binDir, "tared"), "registry", "--listen", address, "--root", dir)
	case "docker-registry":
		need(t, name)
		config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n", dir, address)
		file := dir + ".yml"
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		serve(t, address, name, "serve", file)
	}
	started[name] = address
	return address
}

// manifestDigest asks a registry for what a tag stands for.
func manifestDigest(t *testing.T, address, repository, tag string) string {
	t.Helper()
	req, err := http.NewRequest("HEAD", "http://"+address+"/v2/"+repository+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"} {
		req.Header.Add("Accept", m)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s:%s: %s", repository, tag, resp.Status)
	}
	return resp.Header.Get("Docker-Content-Digest")
}
