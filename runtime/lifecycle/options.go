package lifecycle

// CreateOptions say what to create: the flags of "create".
type CreateOptions struct {
	ID            string
	Bundle        string // directory; empty: the working directory
	ConsoleSocket string // path of the unix socket that takes the terminal's master
	PidfdSocket   string // path of the unix socket that takes a pidfd of the init
	PidFile       string
	NoPivot       bool
	NoNewKeyring  bool
	PreserveFDs   int // how many descriptors from 3 on the process inherits, after those of socket activation
}

// RunOptions say what to create, and to start at once: the flags of "run".
type RunOptions struct {
	CreateOptions
	Detach      bool // return when the process runs
	Keep        bool // leave the stopped container to a later delete
	NoSubreaper bool
}

// ExecOptions say what to run in a container that exists: the flags of "exec".
type ExecOptions struct {
	ID             string
	Args           []string // program and arguments; with ProcessFile none
	ConsoleSocket  string
	PidfdSocket    string
	Cwd            string // empty: as the container's process
	ProcessFile    string // a process of the specification as JSON, in place of the container's process
	PidFile        string
	User           string // "uid[:gid]"; empty: as the container's process
	ProcessLabel   string
	AppArmor       string
	Env            []string // "KEY=value", over those of the container's process
	AdditionalGids []uint32
	Tty            bool
	Detach         bool
	NoNewPrivs     bool
	IgnorePaused   bool // a paused container is no error
	Caps           []string
	PreserveFDs    int      // how many descriptors from 3 on the process inherits
	Cgroups        []string // "[controller:]path" of existing groups below the container's
}
