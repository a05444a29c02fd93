package criu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The destination decides: CVE-2024-8676, CVE-2026-92574, CVE-2026-95837.
func TestDestination(t *testing.T) {
	needCriu(t)
	const seccomp = `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdirat","mkdir"],"action":"SCMP_ACT_ERRNO"}]}`
	const other = `linux.seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["swapon"],"action":"SCMP_ACT_ERRNO"}]}`
	const fewCaps = `process.capabilities={"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}`
	for _, c := range []struct {
		row           string
		before, after []string // edits of the configuration
		want          string   // error; empty: restored
	}{
		{"CVE-2026-95837 fewer capabilities", nil, []string{fewCaps}, "bounding capabilities"},
		{"CVE-2026-95837 more capabilities stay what they were", []string{fewCaps}, nil, ""},
		{"CVE-2026-95837 another user", nil, []string{`process.user={"uid":1000,"gid":0}`, fewCaps}, "user id is 0, not 1000"},
		{"another user with the same capabilities", []string{fewCaps}, []string{fewCaps, `process.user={"uid":1000,"gid":0}`}, "user id is 0, not 1000"},
		{"another group", []string{fewCaps}, []string{fewCaps, `process.user={"uid":0,"gid":1000}`}, "group id is 0, not 1000"},
		{"a group more", []string{fewCaps, `process.user={"uid":0,"gid":0,"additionalGids":[7]}`}, []string{fewCaps}, "it is a member of group 7"},
		{"CVE-2026-92574 no_new_privs is applied", []string{`process.noNewPrivileges=false`}, []string{`process.noNewPrivileges=true`}, ""},
		{"the same filter", []string{seccomp}, []string{seccomp}, ""},
		{"no filter before", nil, []string{seccomp}, "of the images has no seccomp filter"},
		{"another filter before", []string{other}, []string{seccomp}, "is not below the filter of linux.seccomp"},
		{"a filter that is not asked for any more", []string{seccomp}, nil, ""},
		{"lower limits", []string{`process.rlimits=[{"type":"RLIMIT_NOFILE","hard":500,"soft":400}]`},
			[]string{`process.rlimits=[{"type":"RLIMIT_NOFILE","hard":300,"soft":300}]`}, "hard limit RLIMIT_NOFILE is 500, more than 300"},
		{"higher oom score", nil, []string{`process.oomScoreAdj=300`}, "oom_score_adj is 0, lower than 300"},
		{"another namespace", nil, []string{`linux.namespaces+=[{"type":"cgroup"}]`}, ""},
		{"no network namespace", nil, []string{`linux.namespaces=[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]`}, "not the host's"},
	} {
		row(t, c.row, func(h *H) {
			b := h.Bundle().Edit(c.before...)
			start(h, b, "")
			images := checkpoint(h, b)
			b.Edits = c.after
			h.Write(b)
			if c.want != "" {
				refused(h, b, images, c.want)
				return
			}
			at := count(b)
			restore(h, b, images)
			awaitCount(h, b, at)
			if n := status(h, b, "NoNewPrivs"); n != "1" {
				h.Errorf("NoNewPrivs %s", n)
			}
			if strings.Contains(strings.Join(c.after, ""), "seccomp") {
				if s := status(h, b, "Seccomp"); s != "2" {
					h.Errorf("Seccomp %s", s)
				}
			}
		})
	}
}

// CVE-2026-119101, CVE-2026-115520, CVE-2026-119614: the mounts are those of config.json.
func TestDestinationMounts(t *testing.T) {
	needCriu(t)
	for _, c := range []struct {
		row    string
		change func(m []specs.Mount) []specs.Mount // of the binds
		want   string
	}{
		{"read-only now", func(m []specs.Mount) []specs.Mount { m[1].Options = append(m[1].Options, "ro"); return m }, `mount on "/data/rw": its flags`},
		{"not read-only any more", func(m []specs.Mount) []specs.Mount { m[0].Options = []string{"bind", "nosuid"}; return m }, `mount on "/data/ro": its flags`},
		{"one less", func(m []specs.Mount) []specs.Mount { return m[1:] }, "the images have"},
		{"one more", func(m []specs.Mount) []specs.Mount {
			return append(m, specs.Mount{Destination: "/more", Source: "/tmp", Options: []string{"bind"}})
		}, "the images have no mount on"},
		{"another place", func(m []specs.Mount) []specs.Mount { m[1].Destination = "/data/xx"; return m }, "the images have no mount on"},
		{"another size", func(m []specs.Mount) []specs.Mount { m[3].Options[0] = "size=2m"; return m }, "mount on /scratch: options of the file system are"},
	} {
		row(t, c.row, func(h *H) {
			b := h.Bundle()
			base, m := b.Spec.Mounts, binds(h)
			b.Spec.Mounts = append(append([]specs.Mount{}, base...), m...)
			start(h, b, "")
			images := checkpoint(h, b)
			b.Spec.Mounts = append(append([]specs.Mount{}, base...), c.change(m)...)
			h.Write(b)
			refused(h, b, images, c.want)
		})
	}
	row(t, "another source is the destination's", func(h *H) {
		b := h.Bundle()
		base, m := b.Spec.Mounts, binds(h)
		b.Spec.Mounts = append(append([]specs.Mount{}, base...), m...)
		start(h, b, "")
		images := checkpoint(h, b)
		m[0].Source = h.TempDir()
		h.File(filepath.Join(m[0].Source, "new"), "", 0o644)
		b.Spec.Mounts = append(append([]specs.Mount{}, base...), m...)
		h.Write(b)
		restore(h, b, images)
		h.Want(h.RT("exec", b.ID, "ls", "/data/ro"), "new", 0)
		h.Want(h.RT("exec", b.ID, "touch", "/data/ro/x"), "", 1)
	})
	row(t, "CVE-2026-119101 a link of the image on the way to a destination", func(h *H) {
		b := h.Bundle()
		if err := os.Symlink("/etc", filepath.Join(b.Rootfs, "link")); err != nil {
			h.Fatalf("%v", err)
		}
		secret, data := h.TempDir(), h.TempDir()
		b.Spec.Mounts = append(b.Spec.Mounts,
			specs.Mount{Destination: "/link/data", Source: data, Options: []string{"bind", "ro"}},
			specs.Mount{Destination: "/other", Source: secret, Options: []string{"bind", "ro"}})
		start(h, b, "")
		table := mounts(h, b)
		images := checkpoint(h, b)
		os.Remove(filepath.Join(b.Rootfs, "link"))
		os.Symlink("/other", filepath.Join(b.Rootfs, "link"))
		refused(h, b, images, "the images have no mount on")
		os.Remove(filepath.Join(b.Rootfs, "link"))
		os.Symlink("/etc", filepath.Join(b.Rootfs, "link"))
		restore(h, b, images)
		if got := mounts(h, b); got != table {
			h.Errorf("mounts before:\n%s\nafter:\n%s", table, got)
		}
	})
}

// An image directory that somebody has changed.
func TestHostileImages(t *testing.T) {
	needCriu(t)
	dumped := func(h *H) (*Bundle, string) {
		b := h.Bundle()
		b.Spec.Mounts = append(b.Spec.Mounts, binds(h)...)
		start(h, b, "")
		return b, checkpoint(h, b)
	}
	row(t, "a read-only mount made writable", func(h *H) {
		b, images := dumped(h)
		editMount(h, images, "/data/ro", 5, func(flags uint64) uint64 { return flags &^ 1 })
		refused(h, b, images, `mount on "/data/ro": its flags in the images are`)
	})
	row(t, "keys exchanged", func(h *H) {
		b, images := dumped(h)
		file := mountFile(h, images)
		data, _ := os.ReadFile(file)
		text := strings.NewReplacer("tare-mount-0", "tare-mount-1", "tare-mount-1", "tare-mount-0").Replace(string(data))
		os.WriteFile(file, []byte(text), 0o600)
		refused(h, b, images, "its key in the images is")
	})
	row(t, "the host's devices in place of a tmpfs", func(h *H) {
		b, images := dumped(h)
		editMount(h, images, "/scratch", 1, func(uint64) uint64 { return 3 })
		refused(h, b, images, `mount on "/scratch": criu cannot restore its file system`)
	})
	row(t, "links in place of images and of the log", func(h *H) {
		b, images := dumped(h)
		secret := h.File("secret", "secret", 0o600)
		os.Remove(filepath.Join(images, "restore.log"))
		os.Symlink(secret, filepath.Join(images, "restore.log"))
		pages, _ := filepath.Glob(filepath.Join(images, "pages-*.img"))
		os.Rename(pages[0], pages[0]+".kept")
		os.Symlink(secret, pages[0])
		refused(h, b, images, "is not a regular file")
		os.Rename(pages[0]+".kept", pages[0])
		os.Symlink("/etc", filepath.Join(images, "parent"))
		refused(h, b, images, "is not below")
		os.Remove(filepath.Join(images, "parent"))
		at := count(b)
		restore(h, b, images)
		awaitCount(h, b, at)
		if data, _ := os.ReadFile(secret); string(data) != "secret" {
			h.Errorf("the log went through a link: %.100q", data)
		}
	})
	row(t, "rubbish", func(h *H) {
		b, images := dumped(h)
		os.WriteFile(mountFile(h, images), []byte("rubbish rubbish"), 0o600)
		refused(h, b, images, "is not an image of criu of this kind")
	})
	row(t, "criu's words in the error", func(h *H) {
		b, images := dumped(h)
		os.Remove(filepath.Join(images, "pstree.img"))
		refused(h, b, images, "restore.log says:")
		if data, _ := os.ReadFile(filepath.Join(images, "restore.log")); len(data) == 0 {
			h.Errorf("criu's log is not there")
		}
	})
}

func mountFile(h *H, images string) string {
	files, _ := filepath.Glob(filepath.Join(images, "mountpoints-*.img"))
	if len(files) != 1 {
		h.Fatalf("files %q", files)
	}
	return files[0]
}

// editMount changes a number, field id of the mount on point, in the images.
func editMount(h *H, images, point string, id int, change func(uint64) uint64) {
	file := mountFile(h, images)
	data, err := os.ReadFile(file)
	if err != nil {
		h.Fatalf("%v", err)
	}
	out := append([]byte{}, data[:8]...)
	for rest := data[8:]; len(rest) > 0; {
		size := binary.LittleEndian.Uint32(rest)
		entry := rest[4 : 4+size]
		rest = rest[4+size:]
		if strings.Contains(string(entry), point) {
			entry = editField(entry, id, change)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(len(entry)))
		out = append(out, entry...)
	}
	if err := os.WriteFile(file, out, 0o600); err != nil {
		h.Fatalf("%v", err)
	}
}

func editField(entry []byte, id int, change func(uint64) uint64) (out []byte) {
	for len(entry) > 0 {
		key, n := binary.Uvarint(entry)
		value, m := binary.Uvarint(entry[n:])
		if key&7 == 2 {
			end := n + m + int(value)
			out = append(out, entry[:end]...)
			entry = entry[end:]
			continue
		}
		if int(key>>3) == id {
			value = change(value)
		}
		out = binary.AppendUvarint(append(out, entry[:n]...), value)
		entry = entry[n+m:]
	}
	return out
}
