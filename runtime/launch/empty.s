// This file lets the package declare functions without a body: they are linked by name in clone_unsafe.go.
