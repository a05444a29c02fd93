package seccomp

import (
	"fmt"
	"strconv"
	"strings"
)

// errnoNames are Linux' names of errno values from 1 on, as all architectures but MIPS number them (asm-generic/errno.h); "-" is
// a value without a name.
const errnoNames = "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV " +
	"ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG " +
	"ENOLCK ENOSYS ENOTEMPTY ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO " +
	"EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT " +
	"EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK " +
	"EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE " +
	"EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT " +
	"ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM " +
	"EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON"

// mipsSame is the last errno value that MIPS numbers as the others do.
const mipsSame = 34

// errnoName writes an errno of a machine: "EPERM (1)", or the number alone.
func errnoName(m machine, n uint32) string {
	if n == m.enosys()&^retErrno {
		return fmt.Sprintf("ENOSYS (%d)", n)
	}
	names := strings.Fields(errnoNames)
	if n == 0 || int(n) > len(names) || names[n-1] == "-" || m.enosys() == enosysMIPS && n > mipsSame {
		return "errno " + strconv.Itoa(int(n))
	}
	return fmt.Sprintf("%s (%d)", names[n-1], n)
}

// errnoNumber is the value of a name, as Podman's profiles have it.
func errnoNumber(name string) (*uint, error) {
	for i, n := range strings.Fields(errnoNames) {
		if n == name && n != "-" {
			v := uint(i + 1)
			return &v, nil
		}
	}
	return nil, fmt.Errorf("unknown errno %q", name)
}
