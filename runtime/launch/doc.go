// Package launch runs plans: it lowers a plan's operations to system calls, clones, runs them in the child and reports.
//
// The child is a raw clone(2) of the runtime without a Go scheduler. It allocates nothing, takes no lock and grows no stack: every
// string, buffer and descriptor slot lies in an arena that the parent prepared, and the program is a loop over fixed-size
// instructions that ends in execve(2). Parent and child speak over a socket pair:
//
//	parent                                child
//	  clone3 ───────────────────────────────►
//	  (id maps, oom score) ── byte ─────────►  Wait
//	  ◄──────────────── record{stage} ───────  Tell      hooks of create run in the parent
//	  ── byte ──────────────────────────────►  Wait
//	  ◄──────── record{descriptor} + SCM_RIGHTS  Terminal
//	  (limits) ── byte ─────────────────────►  Wait
//	  ◄──────────────── record{stage} ───────  Tell      created; or end of file: execve succeeded
//
// A failing instruction sends record{index, errno} and the child exits; the parent, which still holds the plan, makes the
// sentence. No text crosses the socket. A created container leaves the pair behind and waits on a listening socket
// for start, which gets the same records.
package launch
