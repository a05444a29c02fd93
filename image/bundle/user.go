package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/sys/fsat"
)

// Limits of an image's /etc/passwd and /etc/group, in bytes (CVE-2025-4437, CVE-2026-47262).
const (
	maxDatabase = 16 << 20
	maxLine     = 1 << 20
)

// lookupUser resolves user[:group] in the root filesystem, and the user's home directory there.
//
// A string of digits is always a number and never looked up as a name (CVE-2016-3697, CVE-2026-46680); other names must be
// found. Without a group, the user's own and supplementary groups are taken from the root filesystem, for a number too, as
// the specification's config.md and docker have it (conversion.md would give a number none). The primary group is always
// among the additional ones: a process could drop it otherwise, and with it a permission denied to the group (CVE-2023-25173).
func lookupUser(root *os.File, spec string) (u specs.User, home string, err error) {
	name, group, _ := strings.Cut(spec, ":")
	if spec == "" {
		name = "0"
	}
	if name == "" || strings.Contains(group, ":") {
		return u, "", fmt.Errorf("user %q is not USER or USER:GROUP", spec)
	}
	var entry passwdEntry
	number, numeric, err := parseID(name)
	if err == nil {
		entry, err = findUser(root, name, number, numeric)
	}
	if err != nil {
		return u, "", fmt.Errorf("user %q: %w", spec, err)
	}
	u.UID, u.GID = entry.uid, entry.gid
	if group != "" {
		if u.GID, err = lookupGroup(root, group); err != nil {
			return u, "", fmt.Errorf("group of user %q: %w", spec, err)
		}
		u.AdditionalGids = []uint32{u.GID}
		return u, entry.home, nil
	}
	if u.AdditionalGids, err = memberships(root, entry.name); err != nil {
		return u, "", fmt.Errorf("groups of user %q: %w", spec, err)
	}
	u.AdditionalGids = append(u.AdditionalGids, u.GID)
	slices.Sort(u.AdditionalGids)
	u.AdditionalGids = slices.Compact(u.AdditionalGids)
	return u, entry.home, nil
}

// parseID reads a user or group number: digits only, below the number that means "no change" to the kernel.
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, true, fmt.Errorf("number %s is out of range, at most %d", s, uint32(math.MaxUint32-1))
	}
	return uint32(n), true, nil
}

type passwdEntry struct {
	name     string
	uid, gid uint32
	home     string
}

// findUser finds the first entry of the name or, if numeric, the number. A number needs none: then its group is 0, its home "/".
func findUser(root *os.File, name string, number uint32, numeric bool) (passwdEntry, error) {
	e := passwdEntry{uid: number, home: "/"}
	found := false
	err := scan(root, "etc/passwd", func(fields []string) (bool, error) {
		if len(fields) < 4 || fields[0] == "" {
			return true, nil
		}
		uid, ok, err := parseID(fields[2])
		if numeric && (!ok || err != nil || uid != number) || !numeric && fields[0] != name {
			return true, nil
		}
		gid, gidOK, gidErr := parseID(fields[3])
		if err := errors.Join(err, gidErr); err != nil || !ok || !gidOK {
			return false, fmt.Errorf("entry of /etc/passwd with numbers %q and %q", fields[2], fields[3])
		}
		found = true
		e = passwdEntry{name: fields[0], uid: uid, gid: gid, home: "/"}
		if len(fields) > 5 && strings.HasPrefix(fields[5], "/") {
			e.home = fields[5]
		}
		return false, nil
	})
	if err == nil && !found && !numeric {
		err = errors.New("not in the image's /etc/passwd")
	}
	return e, err
}

func lookupGroup(root *os.File, group string) (uint32, error) {
	gid, numeric, err := parseID(group)
	if err != nil || numeric {
		return gid, err
	}
	found := false
	err = scan(root, "etc/group", func(fields []string) (bool, error) {
		if len(fields) < 3 || fields[0] != group {
			return true, nil
		}
		id, ok, err := parseID(fields[2])
		if err != nil || !ok {
			return false, fmt.Errorf("entry of /etc/group with number %q", fields[2])
		}
		gid, found = id, true
		return false, nil
	})
	if err == nil && !found {
		err = errors.New("not in the image's /etc/group")
	}
	return gid, err
}

// maxGroups is how many groups a process can have (NGROUPS_MAX).
const maxGroups = 65536

// memberships returns the groups that list the user as a member.
func memberships(root *os.File, name string) (gids []uint32, err error) {
	if name == "" {
		return nil, nil
	}
	err = scan(root, "etc/group", func(fields []string) (bool, error) {
		if len(fields) < 4 || !slices.Contains(strings.Split(fields[3], ","), name) {
			return true, nil
		}
		id, ok, err := parseID(fields[2])
		if err != nil || !ok {
			return false, fmt.Errorf("entry of /etc/group with number %q", fields[2])
		}
		gids = append(gids, id)
		if len(gids) >= maxGroups {
			return false, fmt.Errorf("more than %d", maxGroups-1)
		}
		return true, nil
	})
	return gids, err
}

// scan calls each with the fields of every line of a database below root until it returns false. A file that is missing is
// empty; one that is not a regular file is never opened.
func scan(root *os.File, name string, each func(fields []string) (more bool, err error)) error {
	f, err := fsat.OpenRegularInRoot(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the image's /%s: %w", name, err)
	}
	defer f.Close()
	limited := &io.LimitedReader{R: f, N: maxDatabase + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		more, err := each(strings.Split(line, ":"))
		if err != nil || !more {
			return err
		}
	}
	if lines.Err() == nil && limited.N == 0 {
		return fmt.Errorf("the image's /%s is larger than %d bytes", name, maxDatabase)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the image's /%s (lines of at most %d bytes): %w", name, maxLine, err)
	}
	return nil
}
