package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// compiler holds what all architectures' code is made from.
type compiler struct {
	machine  machine
	def      uint32 // default answer
	enosys   uint32 // answer to calls newer than the profile
	rules    []rule
	ids      [][]int // of each rule's names, in the tables; unknown names are left out
	named    int     // rules before this index are the profile's, later ones were added for multiplexed calls
	chains   []chain
	total    int // of ids
	warnings []string
}

// chain is the decision for a call that has rules with conditions: the answer of the first that matches, else final.
type chain struct {
	rules []int // indexes
	final uint32
}

// outcome is what happens to a number: an answer, or a chain if that is not noChain. A narrow chain compares 32 bits.
type outcome struct {
	ret    uint32
	chain  int
	narrow bool
}

func always(ret uint32) outcome { return outcome{ret: ret, chain: noChain} }

const noChain = -1

// span is a run of numbers with the same outcome, from start up to the next span's start.
type span struct {
	start uint32
	out   outcome
}

// call is one rule for one number: the number in the upper half, the rule's index in the lower, so that sorting them is
// cheap.
type call uint64

func (c call) nr() uint32 { return uint32(c >> 32) }

func (c call) rule() int { return int(uint32(c)) }

func newCompiler(m machine, list []rule, def uint32) *compiler {
	c := &compiler{machine: m, def: def, enosys: retErrno | m.enosys(), rules: list, named: len(list)}
	total := 0
	for i := range list {
		total += len(list[i].names)
	}
	ids := make([]int, 0, total)
	c.ids = make([][]int, 0, len(list)+len(multiplexed))
	var first [numNames]int // 1 + index of a name's first rule without conditions
	for i := range list {
		r := &c.rules[i]
		start := len(ids)
		for _, name := range r.names {
			id := lookup(name)
			if id < 0 {
				c.warn(name)
				continue
			}
			ids = append(ids, id)
			if first[id] == 0 && len(r.conds) == 0 && !c.idle(r) {
				first[id] = i + 1
			}
		}
		c.ids = append(c.ids, ids[start:len(ids):len(ids)])
	}
	c.total = len(ids)
	c.addMultiplexed(&first)
	return c
}

func (c *compiler) warn(name string) {
	w := fmt.Sprintf("unknown system call %q is ignored", name)
	if !slices.Contains(c.warnings, w) && len(c.warnings) < 16 {
		c.warnings = append(c.warnings, w)
	}
}

// idle rules repeat a default that lets calls happen.
func (c *compiler) idle(r *rule) bool { return r.ret == c.def && permissive(c.def) }

// multiplexed lists the calls that socketcall(2) and ipc(2) reach, with the number in the first argument that selects them
// (linux/net.h, linux/ipc.h). The kernel looks at an int, of which ipc takes the upper half for a version.
var multiplexed = [...]struct {
	by, name string
	selector uint64
}{
	{"socketcall", "socket", 1}, {"socketcall", "bind", 2}, {"socketcall", "connect", 3}, {"socketcall", "listen", 4},
	{"socketcall", "accept", 5}, {"socketcall", "getsockname", 6}, {"socketcall", "getpeername", 7},
	{"socketcall", "socketpair", 8}, {"socketcall", "send", 9}, {"socketcall", "recv", 10}, {"socketcall", "sendto", 11},
	{"socketcall", "recvfrom", 12}, {"socketcall", "shutdown", 13}, {"socketcall", "setsockopt", 14},
	{"socketcall", "getsockopt", 15}, {"socketcall", "sendmsg", 16}, {"socketcall", "recvmsg", 17},
	{"socketcall", "accept4", 18}, {"socketcall", "recvmmsg", 19}, {"socketcall", "sendmmsg", 20},
	{"ipc", "semop", 1}, {"ipc", "semget", 2}, {"ipc", "semctl", 3}, {"ipc", "semtimedop", 4}, {"ipc", "msgsnd", 11},
	{"ipc", "msgrcv", 12}, {"ipc", "msgget", 13}, {"ipc", "msgctl", 14}, {"ipc", "shmat", 21}, {"ipc", "shmdt", 22},
	{"ipc", "shmget", 23}, {"ipc", "shmctl", 24},
}

func selectorMask(by string) uint64 {
	if by == "ipc" {
		return 0xffff
	}
	return 0xffffffff
}

// addMultiplexed makes refusals hold on the second way into the kernel, too. An answer that may let the call happen is
// only added where it is stricter than the default.
func (c *compiler) addMultiplexed(first *[numNames]int) {
	for _, m := range multiplexed {
		i := first[lookup(m.name)]
		if i == 0 {
			continue
		}
		ret := c.rules[i-1].ret
		if strictness(ret) > strictness(retErrno) && strictness(ret) >= strictness(c.def) {
			continue
		}
		c.rules = append(c.rules, rule{ret: ret, conds: []specs.LinuxSeccompArg{
			{Index: 0, Op: specs.OpMaskedEqual, Value: selectorMask(m.by), ValueTwo: m.selector}}})
		c.ids = append(c.ids, []int{lookup(m.by)})
	}
}

// calls lists an architecture's numbers that have rules, by number, then in the profile's order; and the largest number
// that the profile names, with false if it names none.
func (c *compiler) calls(a *arch) (list []call, newest uint32, any bool) {
	list = make([]call, 0, c.total)
	for i, ids := range c.ids {
		for _, id := range ids {
			nr, ok := a.number(id)
			if !ok {
				continue
			}
			list = append(list, call(nr)<<32|call(i))
			if i < c.named && !a.isPrivate(nr) {
				newest, any = max(newest, nr), true
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list), newest, any
}

// appendSpans adds an architecture's numbers, from low on, to spans that end below.
func (c *compiler) appendSpans(spans []span, a *arch, low uint32) []span {
	def := always(c.def)
	spans = appendSpan(spans, low, def)
	list, newest, any := c.calls(a)
	refuse := any && !permissive(c.def)
	for i := 0; i < len(list); {
		j, nr := i, list[i].nr()
		for j < len(list) && list[j].nr() == nr {
			j++
		}
		private := a.isPrivate(nr)
		if refuse && private {
			spans, refuse = c.appendNewer(spans, a, newest), false
		}
		if private || !refuse || nr <= newest { // a multiplexer may be newer than what the profile names
			spans = appendSpan(spans, nr, c.outcome(list[i:j], a.narrow))
			spans = appendSpan(spans, nr+1, def)
		}
		i = j
	}
	if refuse {
		spans = c.appendNewer(spans, a, newest)
	}
	return spans
}

// appendNewer adds the calls that are newer than the profile.
func (c *compiler) appendNewer(spans []span, a *arch, newest uint32) []span {
	spans = appendSpan(spans, newest+1, always(c.enosys))
	if a.column == colARM {
		spans = appendSpan(spans, armPrivateBase, always(c.def))
	}
	return spans
}

// appendSpan says that out holds from start on.
func appendSpan(spans []span, start uint32, out outcome) []span {
	if n := len(spans); n > 0 && spans[n-1].start == start {
		spans = spans[:n-1]
	}
	if n := len(spans); n > 0 && spans[n-1].out == out {
		return spans
	}
	return append(spans, span{start, out})
}

// outcome applies the package's definition to the rules of one number, which come in the profile's order.
func (c *compiler) outcome(list []call, narrow bool) outcome {
	if r := &c.rules[list[0].rule()]; len(list) == 1 && len(r.conds) == 0 {
		return always(r.ret)
	}
	ch := chain{final: c.def}
	unconditional := false
	for _, l := range list {
		r := &c.rules[l.rule()]
		if c.idle(r) || len(r.conds) == 0 && unconditional {
			continue
		}
		unconditional = unconditional || len(r.conds) == 0
		ch.rules = append(ch.rules, l.rule())
	}
	if len(ch.rules) > 1 {
		slices.SortStableFunc(ch.rules, func(x, y int) int {
			return cmp.Compare(strictness(c.rules[x].ret), strictness(c.rules[y].ret))
		})
	}
	for i, r := range ch.rules {
		if len(c.rules[r].conds) == 0 {
			ch.rules, ch.final = ch.rules[:i], c.rules[r].ret
			break
		}
	}
	for n := len(ch.rules); n > 0 && c.rules[ch.rules[n-1]].ret == ch.final; n-- {
		ch.rules = ch.rules[:n-1]
	}
	if len(ch.rules) == 0 {
		return always(ch.final)
	}
	for i := range c.chains {
		if c.chains[i].final == ch.final && slices.Equal(c.chains[i].rules, ch.rules) {
			return outcome{chain: i, narrow: narrow}
		}
	}
	c.chains = append(c.chains, ch)
	return outcome{chain: len(c.chains) - 1, narrow: narrow}
}
