#include "textflag.h"

// func get(limit *[2]uint64)
TEXT ·get(SB), NOSPLIT, $0-8
	MOVQ limit+0(FP), R10
	MOVQ $302, AX // prlimit64
	MOVQ $0, DI   // of this process
	MOVQ $7, SI   // RLIMIT_NOFILE
	MOVQ $0, DX   // no new limit
	SYSCALL
	RET
