// Package conformance holds tare-runtime to what others wrote to check runtimes with: the validation of the
// runtime-tools, and the JSON schemas of the runtime specification with their examples. What is expected to fail is in
// a table with its reason; an unexpected pass fails the test like an unexpected failure.
package conformance

import (
	"flag"
	"os"
	"testing"

	"github.com/tare-oci/tare/test/internal/ocitest"
)

// update makes the tests rewrite docs/conformance/runtime-tools.md, with a column for each of tare-runtime, runc and crun.
var update = flag.Bool("update", false, "rewrite docs/conformance/runtime-tools.md")

// long reports whether the programs that wait for many seconds run too.
func long() bool { return *update || os.Getenv("TARE_LONG") == "1" }

func TestMain(m *testing.M) { ocitest.Main(m) }
