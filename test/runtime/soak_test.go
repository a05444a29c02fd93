package runtime

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// TestSoak lets many containers live at the same time: 1000 with TARE_LONG=1, else some.
func TestSoak(t *testing.T) {
	if !ocitest.Tare() {
		t.Skip("the figures are for tare")
	}
	lifecycles, atATime, most := 100, 8, 50
	if long() {
		lifecycles, atATime, most = 1000, 16, 1000
	}
	row(t, fmt.Sprintf("issue7 D %d lifecycles, %d at a time", lifecycles, atATime), func(h *H) {
		c := newCrowd(h)
		begin := time.Now()
		c.each(lifecycles, atATime, func(id string) {
			for _, args := range [][]string{{"create", "--bundle", c.b.Dir, id}, {"start", id}, {"state", id}, {"exec", id, "true"}, {"delete", "--force", id}} {
				if !c.do(args...) {
					return
				}
			}
		})
		h.T.Logf("%d lifecycles in %v", lifecycles, time.Since(begin).Round(time.Millisecond))
		h.NoLeak("the lifecycles")
	})
	row(t, fmt.Sprintf("issue7 D %d containers at once", most), func(h *H) {
		c := newCrowd(h)
		c.up(10)
		few := c.measure()
		c.up(most - 10)
		many := c.measure()
		each := (many.list - few.list) / time.Duration(most-10)
		h.T.Logf("beside 10: %+v; beside %d: %+v; list: %v for each", few, most, many, each.Round(time.Microsecond))
		if many.state > few.state*3/2 {
			h.Errorf("state takes %v beside 10 containers, %v beside %d", few.state, many.state, most)
		}
		if many.start > few.start*3/2 {
			h.Errorf("one more lifecycle takes %v beside 10 containers, %v beside %d", few.start, many.start, most)
		}
		if each > 500*time.Microsecond {
			h.Errorf("list takes %v for each container", each)
		}
		begin := time.Now()
		var all sync.WaitGroup
		ids := make(chan string)
		for range atATime {
			all.Go(func() {
				for id := range ids {
					c.do("delete", "--force", id)
				}
			})
		}
		for _, id := range c.alive {
			ids <- id
		}
		close(ids)
		all.Wait()
		h.T.Logf("deleted in %v", time.Since(begin).Round(time.Millisecond))
		h.NoLeak("all of them")
	})
}

// crowd is many containers of one bundle.
type crowd struct {
	*H
	b     *Bundle
	alive []string
}

func newCrowd(h *H) *crowd {
	c := &crowd{H: h, b: h.Bundle().Args("sleep", "10000").Edit("-linux.cgroupsPath")}
	h.Write(c.b)
	return c
}

// do calls the runtime; it may be called by several goroutines.
func (c *crowd) do(args ...string) bool {
	r := c.Do(Cmd{Args: args, Timeout: time.Minute})
	if r.Code != 0 {
		c.Errorf("%s: status %d: %s", strings.Join(args, " "), r.Code, r.Stderr)
	}
	r.Remove()
	return r.Code == 0
}

// each calls f with n new ids, some at a time.
func (c *crowd) each(n, atATime int, f func(id string)) {
	ids := make(chan string)
	var all sync.WaitGroup
	for range atATime {
		all.Go(func() {
			for id := range ids {
				f(id)
			}
		})
	}
	for range n {
		ids <- c.NewID()
	}
	close(ids)
	all.Wait()
}

// up starts n containers more.
func (c *crowd) up(n int) {
	var mu sync.Mutex
	c.each(n, 4, func(id string) {
		if c.do("run", "-d", "--bundle", c.b.Dir, id) {
			mu.Lock()
			c.alive = append(c.alive, id)
			mu.Unlock()
		}
	})
	if c.Problems() > 0 {
		c.Fatalf("not all containers run")
	}
}

// times are the least of some, since others work on the machine too; those of list and state are processor time, for
// the same reason.
type times struct{ list, state, start time.Duration }

func (c *crowd) measure() times {
	id := c.NewID()
	var list, state, start []time.Duration
	took := func(to *[]time.Duration, args ...string) {
		before := childrenTime()
		c.do(args...)
		*to = append(*to, childrenTime()-before)
	}
	for range 20 {
		took(&list, "list", "--quiet")
		took(&state, "state", c.alive[0])
		begin := time.Now()
		c.do("run", "-d", "--bundle", c.b.Dir, id)
		c.do("delete", "--force", id)
		start = append(start, time.Since(begin))
	}
	return times{slices.Min(list), slices.Min(state), slices.Min(start)}
}

// childrenTime is the processor time of all children that were waited for.
func childrenTime() time.Duration {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_CHILDREN, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
