#include "textflag.h"

// The program's entry (linker flag -E), before Go's. A command that starts programs of a container first executes this file again
// through a read-only mount of its own: a container that gets hold of /proc/PID/exe, or whose program is
// "#!/proc/self/exe", cannot overwrite the runtime then (CVE-2019-5736). In assembly because a second start of the Go
// runtime would take ten times as long. Where it fails, main seals a copy (internal/sys/sealed).
//
// The stack at entry: argc, argv[0] … argv[argc-1], 0, envp …
TEXT tare_entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ 0(SP), R12          // argc
	LEAQ 8(SP), R13          // argv
	LEAQ 8(R13)(R12*8), R14  // envp
	LEAQ 8(R13), R15         // the next argument

argument:
	MOVQ (R15), AX
	TESTQ AX, AX
	JEQ  start
	ADDQ $8, R15
	MOVL (AX), DX
	CMPL DX, $0x006e7572     // run
	JEQ  seal
	CMPL DX, $0x63657865     // exec
	JNE  create
	CMPB 4(AX), $0
	JEQ  seal

create:
	CMPL DX, $0x61657263     // crea
	JNE  argument
	CMPW 4(AX), $0x6574      // te
	JNE  argument

seal:
	SUBQ $160, SP
	MOVQ $257, AX            // openat(AT_FDCWD, "/proc/self/exe", O_PATH|O_CLOEXEC)
	MOVQ $-100, DI
	LEAQ exe<>(SB), SI
	MOVQ $0x280000, DX
	MOVQ $0, R10
	SYSCALL
	TESTQ AX, AX
	JLT  undo
	MOVQ AX, R15
	MOVQ $138, AX            // fstatfs
	MOVQ R15, DI
	MOVQ SP, SI
	SYSCALL
	TESTQ AX, AX
	JNE  closeExe
	MOVQ 80(SP), AX          // f_flags
	ANDQ $1, AX              // ST_RDONLY: this is the second time, or the system is read-only anyway
	JNE  closeExe
	MOVQ $428, AX            // open_tree(exe, "", AT_EMPTY_PATH|OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC)
	MOVQ R15, DI
	LEAQ empty<>(SB), SI
	MOVQ $0x81001, DX
	SYSCALL
	TESTQ AX, AX
	JLT  closeExe
	MOVQ AX, R12
	MOVQ $1, AX              // struct mount_attr: attr_set MOUNT_ATTR_RDONLY
	MOVQ AX, 0(SP)
	MOVQ $0, AX
	MOVQ AX, 8(SP)
	MOVQ AX, 16(SP)
	MOVQ AX, 24(SP)
	MOVQ $442, AX            // mount_setattr(tree, "", AT_EMPTY_PATH, attr, 32)
	MOVQ R12, DI
	LEAQ empty<>(SB), SI
	MOVQ $0x1000, DX
	MOVQ SP, R10
	MOVQ $32, R8
	SYSCALL
	TESTQ AX, AX
	JNE  closeTree
	MOVQ $322, AX            // execveat(tree, "", argv, envp, AT_EMPTY_PATH)
	MOVQ R12, DI
	LEAQ empty<>(SB), SI
	MOVQ R13, DX
	MOVQ R14, R10
	MOVQ $0x1000, R8
	SYSCALL

closeTree:
	MOVQ $3, AX              // close
	MOVQ R12, DI
	SYSCALL

closeExe:
	MOVQ $3, AX              // close
	MOVQ R15, DI
	SYSCALL

undo:
	ADDQ $160, SP

start:                       // of Go, which finds variables of its own before the environment: see restoreEnvironment
	MOVQ 0(SP), R12
	LEAQ 16(SP)(R12*8), R14  // envp
	MOVQ R14, R15            // the next variable

variable:
	MOVQ (R15), AX
	ADDQ $8, R15
	TESTQ AX, AX
	JEQ  auxiliary
	MOVL (AX), DX
	CMPL DX, $0x43474f47     // GOGC
	JEQ  go
	CMPL DX, $0x414d4f47     // GOMAXPROCS
	JEQ  go
	CMPL DX, $0x454d4f47     // GOMEMLIMIT
	JNE  variable

go:                          // as the user wants it
	JMP _rt0_amd64_linux(SB)

auxiliary:
	MOVQ R15, R13            // pairs of words, the last one of type 0

pair:
	MOVQ (R13), AX
	ADDQ $16, R13
	TESTQ AX, AX
	JNE  pair
	MOVQ $28, AX             // madvise(data and bss, MADV_POPULATE_WRITE): one system call, not a fault for each page
	LEAQ runtime·data(SB), DI
	ANDQ $~4095, DI
	LEAQ runtime·ebss(SB), SI
	SUBQ DI, SI
	MOVQ $23, DX
	SYSCALL
	MOVQ SP, SI
	MOVQ SP, DI
	SUBQ R13, DI
	ADDQ SP, DI
	SUBQ $32, DI
	ANDQ $~15, DI
	MOVQ DI, SP              // room for all of it and three pointers more
	CLD
	MOVQ R14, CX
	SUBQ SI, CX
	SHRQ $3, CX
	REP; MOVSQ
	LEAQ maxprocs<>(SB), AX
	STOSQ
	LEAQ gc<>(SB), AX
	STOSQ
	LEAQ memlimit<>(SB), AX
	STOSQ
	MOVQ R13, CX
	SUBQ R14, CX
	SHRQ $3, CX
	REP; MOVSQ
	MOVB $1, ·environmentAdded(SB)
	MOVQ $157, AX            // prctl(PR_GET_TIMERSLACK)
	MOVQ $30, DI
	MOVQ $0, SI
	MOVQ $0, DX
	MOVQ $0, R10
	MOVQ $0, R8
	SYSCALL
	CMPQ AX, $10000000
	JAE  go
	MOVQ AX, ·timerSlack(SB)
	MOVQ $157, AX            // prctl(PR_SET_TIMERSLACK, 10 ms)
	MOVQ $29, DI
	MOVQ $10000000, SI
	SYSCALL
	JMP _rt0_amd64_linux(SB)

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
