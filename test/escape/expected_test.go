package escape

import (
	"github.com/tare-oci/tare/test/internal/ocitest"
)

var expected = map[string]map[string]ocitest.Deviation{}
