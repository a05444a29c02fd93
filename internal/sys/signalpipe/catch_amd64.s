#include "textflag.h"

// faults are the signals that this program's own faults cause: ILL, TRAP, BUS, FPE, SEGV, STKFLT, SYS.
#define faults 0x800109b0

// The handler, on the thread's signal stack: signal number in DI, siginfo in SI, context in DX. It writes one byte to the pipe. A fault
// (si_code is positive) is handled by the Go runtime.
TEXT ·handler(SB), NOSPLIT|NOFRAME, $0
	MOVL $faults, AX
	BTQ  DI, AX
	JCC  write
	CMPL DI, $32
	JGE  write
	MOVL 8(SI), CX           // si_code
	CMPL CX, $0
	JLE  write
	MOVQ ·previous(SB), AX
	JMP  AX

write:
	SUBQ $16, SP
	MOVB DI, (SP)
	MOVQ $1, AX              // write(pipe, SP, 1)
	MOVQ ·pipe(SB), DI
	MOVQ SP, SI
	MOVQ $1, DX
	SYSCALL
	ADDQ $16, SP
	RET

TEXT restorer<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $15, AX             // rt_sigreturn
	SYSCALL
	INT  $3

// func addresses() (handler, restorer uintptr)
TEXT ·addresses(SB), NOSPLIT, $0-16
	MOVQ $·handler(SB), AX
	MOVQ AX, handler+0(FP)
	MOVQ $restorer<>(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
