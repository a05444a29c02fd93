// Command bench measures tare-runtime and tare against crun, runc and the floor: a static C program that makes the system calls of
// one run and nothing else. It writes docs/benchmarks.md. See `go run ./test/bench -h` and `make bench`.
package main
