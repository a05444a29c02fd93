package spec

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tare-oci/tare/internal/jsonr"
)

// DecodeHooks reads the value of the property hooks, for who keeps one elsewhere than in config.json.
func DecodeHooks(d *jsonr.Decoder, h *specs.Hooks) { decodeHooks(d, h) }
