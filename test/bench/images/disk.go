package main

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// diskSize is how large a disk is for one pull, as a sparse file.
const diskSize = 16 << 30

// disk makes a new file system and mounts it in this program's mount namespace. ext4 makes no new file with an inode that was
// deleted in the last minutes, and searches long to find others: whoever pulls after somebody's store was removed would pay
// for that. So each pull, and the floor, has a disk of its own that is thrown away as a whole.
func (w *world) disk(ctx context.Context) (dir string, free func() error, err error) {
	file := w.fresh("disk")
	dir = file + ".mnt"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", nil, err
	}
	f, err := os.Create(file)
	if err != nil {
		return "", nil, err
	}
	err = f.Truncate(diskSize)
	f.Close()
	if err != nil {
		return "", nil, err
	}
	if _, err := run(ctx, nil, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", file); err != nil {
		return "", nil, err
	}
	loop, err := output(ctx, "losetup", "--find", "--show", "--direct-io=on", file)
	if err != nil {
		return "", nil, err
	}
	free = func() error {
		// What a peer has mounted below goes with it.
		_, err1 := run(ctx, nil, "sh", "-c", `while umount -R "$0" 2>/dev/null; do :; done; losetup --detach "$1"`, dir, loop)
		if err := os.Remove(file); err != nil {
			return err
		}
		return err1
	}
	if _, err := run(ctx, nil, "mount", "-t", "ext4", "-o", "noatime", loop, dir); err != nil {
		free()
		return "", nil, err
	}
	w.lastDisk = dir
	return dir, free, nil
}

// onDisk makes an action that gets a new disk each time.
func (w *world) onDisk(ctx context.Context, who string, once func(dir string) (float64, error), end func()) action {
	var dir string
	var free func() error
	return action{row: rowPull, who: who,
		prepare: func() (err error) { dir, free, err = w.disk(ctx); return err },
		once:    func() (float64, error) { return once(dir) },
		after: func() error {
			if end != nil {
				end()
			}
			return free()
		}}
}

func output(ctx context.Context, argv ...string) (string, error) {
	out := new(strings.Builder)
	c := command(ctx, argv...)
	c.Stdout = out
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return strings.TrimSpace(out.String()), nil
}
