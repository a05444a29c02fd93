package lifecycle

import (
	"os"
	"testing"
)

// TestMain is the program that copies, when a container of these tests has a tmpfs with tmpcopyup.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == CopyUpArg {
		os.Exit(CopyUp(os.Args[2:]))
	}
	os.Exit(m.Run())
}
