#include "textflag.h"

// func get(limit *[2]uint64)
TEXT ·get(SB), NOSPLIT, $0-8
	MOVD limit+0(FP), R3
	MOVD $261, R8 // prlimit64
	MOVD $0, R0   // of this process
	MOVD $7, R1   // RLIMIT_NOFILE
	MOVD $0, R2   // no new limit
	SVC
	RET
