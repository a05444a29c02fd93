// Package prefault maps memory that a short process is about to use with one system call in place of a page fault for each page. A
// fault costs half a microsecond, and several where a hypervisor has no nested paging.
package prefault

// Stack grows the calling goroutine's stack to 64 KiB. Each later growth would copy the frames, and read the tables that describe them.
func Stack()

// large is the size from which Go's allocator gives an object pages of its own, the lowest ones that are free.
const large = 32<<10 + 1

// Heap maps the next bytes of a heap that has not been collected yet. They are those behind the object that was allocated last. An error,
// before Linux 5.14 for example, is of no consequence.
func Heap(bytes int) {
	last := make([]byte, min(large, bytes)) // not a constant: that would lie on the stack
	Range(last, bytes)
}
