package launch

// stackFirst: clone(2) takes the stack before the flags.
const stackFirst = true
