//go:build !(mips || mipsle || mips64 || mips64le)

package spec

// rlimitNames in the order of their numbers, from include/uapi/asm-generic/resource.h.
const rlimitNames = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"

// signalNames in the order of their numbers from 1, from include/uapi/asm-generic/signal.h.
const signalNames = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP " +
	"TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"

// sigMax is the highest signal.
const sigMax = 64
