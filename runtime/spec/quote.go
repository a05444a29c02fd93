package spec

import (
	"strings"

	"github.com/tare-oci/tare/internal/jsonr"
)

// quote quotes a value from outside for a message, and cuts a long one.
func quote(s string) string { return jsonr.Quote(s) }

// escape writes a value as [quote] does, without the quotes: runc's callers look for sentences that have none.
func escape(s string) string {
	q := strings.TrimSuffix(quote(s), "…")
	return q[1 : len(q)-1]
}
