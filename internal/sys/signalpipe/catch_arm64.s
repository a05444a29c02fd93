#include "textflag.h"

// See catch_amd64.s: signal number in R0, siginfo in R1, context in R2. The kernel's own code in the vDSO returns.
#define faults 0x800109b0

TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	CMP  $32, R0
	BGE  write
	MOVD $faults, R9
	LSR  R0, R9, R9
	TBZ  $0, R9, write
	MOVW 8(R1), R9           // si_code
	CMPW $0, R9
	BLE  write
	MOVD ·previous(SB), R9
	JMP  (R9)

write:
	SUB  $16, RSP
	MOVB R0, (RSP)
	MOVD ·pipe(SB), R0       // write(pipe, RSP, 1)
	MOVD RSP, R1
	MOVD $1, R2
	MOVD $64, R8
	SVC
	ADD  $16, RSP
	RET

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-16
	MOVD $·handler(SB), R0
	MOVD R0, handler+0(FP)
	MOVD ZR, restorer+8(FP)
	RET
