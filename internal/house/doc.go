// Package house holds the rules of the code base that a compiler does not check, as tests: who may import whom, where
// unsafe code and system calls live, how long files and functions may be, what the binaries link. A failure says what
// the rule is for. The rules are described in docs/ARCHITECTURE.md; whoever changes one changes both.
package house
