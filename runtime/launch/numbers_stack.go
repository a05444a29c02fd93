//go:build !s390x

package launch

// stackFirst: clone(2) takes the stack before the flags.
const stackFirst = false
