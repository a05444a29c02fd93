package criu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Limits of what an error quotes of criu's log.
const (
	quotedLines = 8
	quotedBytes = 512 // of one line
	logEnd      = 256 << 10
)

// quote returns the lines of a log that tell why criu failed: its errors with the line before each, or its last lines when there
// are none. The log's end is enough: criu stops at the first error and what follows is its consequence.
func quote(log string) string {
	f, err := os.Open(log)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > logEnd {
		f.Seek(-logEnd, io.SeekEnd)
	}
	data, err := io.ReadAll(io.LimitReader(f, logEnd))
	if err != nil {
		return ""
	}
	return quoteText(data)
}

// quoteText is quote for the text of a log.
func quoteText(data []byte) string {
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	var errs []int
	for i, l := range lines {
		if bytes.Contains(l, []byte("Error")) {
			errs = append(errs, i)
		}
	}
	var out []string
	last := -1
	for _, i := range errs {
		if len(out) >= quotedLines {
			break
		}
		if i > 0 && i-1 > last {
			out = append(out, printable(lines[i-1]))
		}
		out = append(out, printable(lines[i]))
		last = i
	}
	if len(errs) == 0 {
		for _, l := range lines[max(0, len(lines)-quotedLines):] {
			out = append(out, printable(l))
		}
	}
	return strings.Join(out, "\n")
}

// printable is a line without what a terminal would obey: it holds names that a container has chosen.
func printable(line []byte) string {
	s := strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(line), "?"))
	if len(s) > quotedBytes {
		s = s[:quotedBytes] + "..."
	}
	return s
}

// Publish copies the log that criu wrote in dir, which only the runtime may write to, to where callers look for it. The directory
// to may be somebody else's: a link of the log's name there is replaced, not followed.
func Publish(dir, to, name string) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	path := filepath.Join(to, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
