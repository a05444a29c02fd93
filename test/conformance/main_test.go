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

// update makes TestValidation rewrite the column of the runtime under test in docs/conformance/runtime-tools.md.
var update = flag.Bool("update", false, "rewrite the runtime's column in docs/conformance/runtime-tools.md")

// long reports whether the programs that wait for many seconds run too.
func long() bool { return *update || os.Getenv("TARE_LONG") == "1" }

func TestMain(m *testing.M) { ocitest.Main(m) }
