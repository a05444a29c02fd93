package fsat

import (
	"context"

	"golang.org/x/sys/unix"
)

// Usage returns the bytes on disk of the directory fd and everything below it on the same mount. A file with several names is
// counted once.
func Usage(ctx context.Context, fd int) (int64, error) {
	return (&counter{seen: map[inode]struct{}{}}).count(ctx, fd)
}

type inode struct{ dev, ino uint64 }

type counter struct{ seen map[inode]struct{} }

func (c *counter) count(ctx context.Context, fd int) (int64, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, err
	}
	total := int64(st.Blocks) * 512 //nolint:unconvert // widths differ by port
	err := Names(fd, func(name string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := retry(func() error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			child, err := openSameMount(fd, name)
			if err != nil {
				return err
			}
			defer unix.Close(child)
			n, err := c.count(ctx, child)
			total += n
			return err
		}
		if st.Nlink > 1 {
			key := inode{uint64(st.Dev), uint64(st.Ino)} //nolint:unconvert // widths differ by port
			if _, ok := c.seen[key]; ok {
				return nil
			}
			c.seen[key] = struct{}{}
		}
		total += int64(st.Blocks) * 512 //nolint:unconvert // widths differ by port
		return nil
	})
	return total, err
}
