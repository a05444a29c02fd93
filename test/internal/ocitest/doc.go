// Package ocitest is the harness of the black-box suites: it gives a test a runtime binary, bundles, a private world
// (own mount, network and process namespaces) to run them in, and an oracle that fails a case that leaves anything behind.
package ocitest
