#include "textflag.h"

// See entry_amd64.s.
TEXT tare_entry(SB), NOSPLIT|NOFRAME, $0
	MOVD 0(RSP), R20         // argc
	ADD  $8, RSP, R21        // argv
	ADD  R20<<3, R21, R22
	ADD  $8, R22             // envp
	ADD  $8, R21, R23        // the next argument

argument:
	MOVD (R23), R9
	CBZ  R9, start
	ADD  $8, R23
	MOVBU 0(R9), R10
	MOVBU 1(R9), R11
	CBZ  R10, argument
	CBZ  R11, argument
	MOVBU 2(R9), R12
	CBZ  R12, argument
	MOVBU 3(R9), R13
	ORR  R11<<8, R10, R10
	ORR  R12<<16, R10, R10
	ORR  R13<<24, R10, R10
	MOVD $0x006e7572, R14    // run
	CMP  R14, R10
	BEQ  seal
	MOVD $0x63657865, R14    // exec
	CMP  R14, R10
	BNE  create
	MOVBU 4(R9), R11
	CBZ  R11, seal

create:
	MOVD $0x61657263, R14    // crea
	CMP  R14, R10
	BNE  argument
	MOVBU 4(R9), R11
	CMP  $0x74, R11          // t
	BNE  argument

seal:
	SUB  $160, RSP
	MOVD $56, R8             // openat(AT_FDCWD, "/proc/self/exe", O_PATH|O_CLOEXEC)
	MOVD $-100, R0
	MOVD $exe<>(SB), R1
	MOVD $0x280000, R2
	MOVD $0, R3
	SVC
	TBNZ $63, R0, undo
	MOVD R0, R23
	MOVD $44, R8             // fstatfs
	MOVD R23, R0
	MOVD RSP, R1
	SVC
	CBNZ R0, closeExe
	MOVD 80(RSP), R9         // f_flags
	TBNZ $0, R9, closeExe    // ST_RDONLY
	MOVD $428, R8            // open_tree(exe, "", AT_EMPTY_PATH|OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)
	MOVD R23, R0
	MOVD $empty<>(SB), R1
	MOVD $0x81001, R2
	SVC
	TBNZ $63, R0, closeExe
	MOVD R0, R20
	MOVD $1, R9              // struct mount_attr: attr_set MOUNT_ATTR_RDONLY
	MOVD R9, 0(RSP)
	MOVD ZR, 8(RSP)
	MOVD ZR, 16(RSP)
	MOVD ZR, 24(RSP)
	MOVD $442, R8            // mount_setattr(tree, "", AT_EMPTY_PATH, attr, 32)
	MOVD R20, R0
	MOVD $empty<>(SB), R1
	MOVD $0x1000, R2
	MOVD RSP, R3
	MOVD $32, R4
	SVC
	CBNZ R0, closeTree
	MOVD $281, R8            // execveat(tree, "", argv, envp, AT_EMPTY_PATH)
	MOVD R20, R0
	MOVD $empty<>(SB), R1
	MOVD R21, R2
	MOVD R22, R3
	MOVD $0x1000, R4
	SVC

closeTree:
	MOVD $57, R8             // close
	MOVD R20, R0
	SVC

closeExe:
	MOVD $57, R8             // close
	MOVD R23, R0
	SVC

undo:
	ADD $160, RSP

start:
	MOVD 0(RSP), R20
	ADD  R20<<3, RSP, R22    // envp, less 16
	ADD  $16, R22
	MOVD R22, R23            // the next variable

variable:
	MOVD.P 8(R23), R9
	CBZ  R9, auxiliary
	MOVBU 0(R9), R10
	CMP  $0x47, R10          // G
	BNE  variable
	MOVBU 1(R9), R10
	CMP  $0x4f, R10          // O
	BNE  variable
	MOVBU 2(R9), R10
	CBZ  R10, variable
	MOVBU 3(R9), R11
	ORR  R11<<8, R10, R10
	MOVD $0x4347, R11        // GC
	CMP  R11, R10
	BEQ  go
	MOVD $0x414d, R11        // MA(XPROCS)
	CMP  R11, R10
	BEQ  go
	MOVD $0x454d, R11        // ME(MLIMIT)
	CMP  R11, R10
	BNE  variable

go:
	JMP _rt0_arm64_linux(SB)

auxiliary:
	MOVD R23, R21

pair:
	MOVD (R21), R9
	ADD  $16, R21
	CBNZ R9, pair
	MOVD $233, R8            // madvise(data and bss, MADV_POPULATE_WRITE): one system call, not a fault for each page
	MOVD $runtime·data(SB), R0
	AND  $~65535, R0
	MOVD $runtime·ebss(SB), R1
	SUB  R0, R1
	MOVD $23, R2
	SVC
	MOVD RSP, R9             // from here
	SUB  R9, R21, R10
	SUB  R10, R9, R10
	SUB  $32, R10
	AND  $~15, R10
	MOVD R10, RSP            // to here: R10

arguments:
	MOVD.P 8(R9), R11
	MOVD.P R11, 8(R10)
	CMP  R22, R9
	BNE  arguments
	MOVD $maxprocs<>(SB), R11
	MOVD.P R11, 8(R10)
	MOVD $gc<>(SB), R11
	MOVD.P R11, 8(R10)
	MOVD $memlimit<>(SB), R11
	MOVD.P R11, 8(R10)

rest:
	MOVD.P 8(R9), R11
	MOVD.P R11, 8(R10)
	CMP  R21, R9
	BNE  rest
	MOVD $1, R11
	MOVB R11, ·environmentAdded(SB)
	MOVD $167, R8            // prctl(PR_GET_TIMERSLACK)
	MOVD $30, R0
	MOVD $0, R1
	MOVD $0, R2
	MOVD $0, R3
	MOVD $0, R4
	SVC
	MOVD $10000000, R1
	CMP  R1, R0
	BHS  go
	MOVD R0, ·timerSlack(SB)
	MOVD $167, R8            // prctl(PR_SET_TIMERSLACK, 10 ms)
	MOVD $29, R0
	SVC
	JMP _rt0_arm64_linux(SB)

DATA exe<>+0(SB)/8, $"/proc/se"
DATA exe<>+8(SB)/8, $"lf/exe\x00\x00"
GLOBL exe<>(SB), RODATA|NOPTR, $16
DATA empty<>+0(SB)/8, $0
GLOBL empty<>(SB), RODATA|NOPTR, $8
DATA maxprocs<>+0(SB)/8, $"GOMAXPRO"
DATA maxprocs<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL maxprocs<>(SB), RODATA|NOPTR, $16
DATA gc<>+0(SB)/8, $"GOGC=off"
DATA gc<>+8(SB)/8, $0
GLOBL gc<>(SB), RODATA|NOPTR, $16
DATA memlimit<>+0(SB)/8, $"GOMEMLIM"
DATA memlimit<>+8(SB)/8, $"IT=64MiB"
DATA memlimit<>+16(SB)/8, $0
GLOBL memlimit<>(SB), RODATA|NOPTR, $24
