// Package systemd has a container's processes in a transient scope of systemd (systemd.scope(5)): the scope is started with the first
// process, its properties are what linux.resources and annotations ask for, and it is stopped with the container. The cgroup is the
// scope's; what is in it beside is runtime/cgroup's.
//
// Interface: org.freedesktop.systemd1(5), https://systemd.io/CGROUP_DELEGATION.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/internal/dbus"
)

const (
	name        = "org.freedesktop.systemd1"
	object      = "/org/freedesktop/systemd1"
	managerFace = "org.freedesktop.systemd1.Manager"

	errExists   = "org.freedesktop.systemd1.UnitExists"
	errNotFound = "org.freedesktop.systemd1.NoSuchUnit"
)

// jobTimeout is how long systemd may take to start or stop a scope.
const jobTimeout = 30 * time.Second

// Where things are; tests change them.
var (
	runtimeDir  = "/run/systemd"
	systemBuses = "unix:path=/run/dbus/system_bus_socket;unix:path=/var/run/dbus/system_bus_socket"
)

// Manager is a connection to one systemd: the system's, or a user's own.
type Manager struct {
	conn *dbus.Conn
}

// errNotRunning has the words that clients know from runc.
var errNotRunning = errors.New("systemd not running on this host, cannot use systemd cgroups manager")

// Connect reaches the systemd that manages this user's processes if user is set, else the system's. The caller closes the connection.
func Connect(ctx context.Context, user bool) (*Manager, error) {
	if st, err := os.Lstat(runtimeDir + "/system"); err != nil || !st.IsDir() { // sd_booted(3)
		return nil, errNotRunning
	}
	conn, err := connect(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("reach systemd: %w", err)
	}
	m := &Manager{conn}
	rule := "type='signal',sender='" + name + "',path='" + object + "',interface='" + managerFace + "',member='JobRemoved'"
	if err := errors.Join(conn.AddMatch(ctx, rule), conn.Tell(ctx, name, object, managerFace, "Subscribe")); err != nil {
		conn.Close()
		return nil, fmt.Errorf("reach systemd: %w", err)
	}
	return m, nil
}

func connect(ctx context.Context, user bool) (*dbus.Conn, error) {
	if user {
		address, err := userBus()
		if err != nil {
			return nil, err
		}
		return dbus.Connect(ctx, address)
	}
	address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if address == "" {
		address = systemBuses
	}
	conn, err := dbus.Connect(ctx, address)
	if err == nil || os.Geteuid() != 0 {
		return conn, err
	}
	// Without a bus, early or late in the system's life, root reaches systemd itself.
	direct, directErr := dbus.ConnectDirect(ctx, runtimeDir+"/private")
	if directErr != nil {
		return nil, errors.Join(err, directErr)
	}
	return direct, nil
}

// userBus is the address of the user's own bus.
func userBus() (string, error) {
	if address := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); address != "" {
		return address, nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		if _, err := os.Stat(dir + "/bus"); err == nil {
			return "unix:path=" + escape(dir+"/bus"), nil
		}
	}
	return "", errors.New("could not detect DBUS_SESSION_BUS_ADDRESS from the environment, and $XDG_RUNTIME_DIR/bus is not there: " +
		"a login session and the package dbus-user-session are needed")
}

// escape writes a path as addresses have it.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; isAlnum(c) || strings.IndexByte("-_/.", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

// Close ends the connection.
func (m *Manager) Close() { m.conn.Close() }

func (m *Manager) call(ctx context.Context, member string, args ...dbus.Value) ([]dbus.Value, error) {
	return m.conn.Call(ctx, name, object, managerFace, member, args...)
}

// property reads a property of the manager that is a string.
func (m *Manager) property(ctx context.Context, property string) (string, error) {
	body, err := m.conn.Call(ctx, name, object, "org.freedesktop.DBus.Properties", "Get", dbus.String(managerFace), dbus.String(property))
	if err == nil && (len(body) != 1 || body[0].Sig != "v" || body[0].Items[0].Sig != "s") {
		err = errors.New("the answer is not a string")
	}
	if err != nil {
		return "", fmt.Errorf("read systemd's %s: %w", property, err)
	}
	return body[0].Items[0].Str, nil
}

// ControlGroup is the manager's own cgroup, below which all its units are: empty for the system's, and for a user's
// "/user.slice/user-1000.slice/user@1000.service".
func (m *Manager) ControlGroup(ctx context.Context) (string, error) {
	group, err := m.property(ctx, "ControlGroup")
	return strings.TrimSuffix(group, "/"), err
}

// version is the number at the front of the manager's version: 252 of "252.38-1~deb12u1" and of "v252-rc1".
func (m *Manager) version(ctx context.Context) (int, error) {
	text, err := m.property(ctx, "Version")
	if err != nil {
		return 0, err
	}
	digits := strings.TrimPrefix(text, "v")
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			digits = digits[:i]
			break
		}
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("read systemd's Version: %q is not one", clip(text))
	}
	return n, nil
}

// Limits is the function of that name, for this systemd.
func (m *Manager) Limits(ctx context.Context, files []File) ([]Property, error) {
	return Limits(files, func() (int, error) { return m.version(ctx) })
}

// Start starts the scope with a process in it, which systemd moves there, and returns when it has. A unit of that name that failed is
// forgotten first; one that runs is an error.
func (m *Manager) Start(ctx context.Context, p Place, pid int, properties []Property) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	all := append([]Property{{"Slice", dbus.String(p.Slice)}, {"PIDs", dbus.Uint32s(uint32(pid))}}, properties...)
	args := []dbus.Value{dbus.String(p.Unit), dbus.String("fail"), list(all), dbus.Array("(sa(sv))")}
	body, err := m.call(ctx, "StartTransientUnit", args...)
	if dbus.Is(err, errExists) {
		if e := m.ResetFailed(ctx, p.Unit); e == nil {
			body, err = m.call(ctx, "StartTransientUnit", args...)
		}
	}
	if err == nil {
		err = m.await(ctx, body)
	}
	if err != nil {
		return fmt.Errorf("start unit %s: %w", p.Unit, err)
	}
	return nil
}

// await waits for the end of the job that a call has returned.
func (m *Manager) await(ctx context.Context, body []dbus.Value) error {
	if len(body) != 1 || body[0].Sig != "o" {
		return errors.New("systemd's answer does not name a job")
	}
	job := body[0].Str
	// JobRemoved(u id, o job, s unit, s result)
	removed, err := m.conn.Signal(ctx, managerFace, "JobRemoved", func(b []dbus.Value) bool { return len(b) == 4 && b[1].Str == job })
	if err != nil {
		return err
	}
	if result := removed[3].Str; result != "done" {
		return fmt.Errorf("the job ended with %q (see journalctl for the reason)", clip(result))
	}
	return nil
}

// Set changes properties of a running unit until it is stopped. With none it does nothing.
func (m *Manager) Set(ctx context.Context, unit string, properties []Property) error {
	if len(properties) == 0 {
		return nil
	}
	if _, err := m.call(ctx, "SetUnitProperties", dbus.String(unit), dbus.Bool(true), list(properties)); err != nil {
		return fmt.Errorf("set properties of unit %s: %w", unit, err)
	}
	return nil
}

// Attach moves a process of this user into a unit's cgroup, or an existing one below it, where this process may not move it itself.
func (m *Manager) Attach(ctx context.Context, unit, below string, pid int) error {
	_, err := m.call(ctx, "AttachProcessesToUnit", dbus.String(unit), dbus.String("/"+strings.Trim(below, "/")), dbus.Uint32s(uint32(pid)))
	if err != nil {
		return fmt.Errorf("move process %d into unit %s: %w", pid, unit, err)
	}
	return nil
}

// Stop stops a unit and waits until it has stopped. One that is gone is not an error.
func (m *Manager) Stop(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	body, err := m.call(ctx, "StopUnit", dbus.String(unit), dbus.String("replace"))
	if dbus.Is(err, errNotFound) {
		return nil
	}
	if err == nil {
		err = m.await(ctx, body)
	}
	if err != nil {
		return fmt.Errorf("stop unit %s: %w", unit, err)
	}
	return nil
}

// ResetFailed lets systemd forget a unit that failed. One that is gone is not an error.
func (m *Manager) ResetFailed(ctx context.Context, unit string) error {
	_, err := m.call(ctx, "ResetFailedUnit", dbus.String(unit))
	if dbus.Is(err, errNotFound) {
		return nil
	}
	return err
}
