//go:build mips || mipsle || mips64 || mips64le

package spec

// rlimitNames in the order of their numbers, from arch/mips/include/uapi/asm/resource.h.
const rlimitNames = "CPU FSIZE DATA STACK CORE NOFILE AS RSS NPROC MEMLOCK LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"

// signalNames in the order of their numbers from 1, from arch/mips/include/uapi/asm/signal.h.
const signalNames = "HUP INT QUIT ILL TRAP ABRT EMT FPE KILL BUS SEGV SYS PIPE ALRM TERM USR1 USR2 CHLD PWR WINCH URG IO " +
	"STOP TSTP CONT TTIN TTOU VTALRM PROF XCPU XFSZ"

// sigMax is the highest signal; the kernel's 128 is out of reach, because a wait status has seven bits.
const sigMax = 127
