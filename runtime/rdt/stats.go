package rdt

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats is the part "intel_rdt" of the data of `events --stats`, in the JSON form that runc gives it. It is empty for a container
// without a class of service.
type Stats struct {
	L3CacheInfo       *L3CacheInfo `json:"l3_cache_info,omitempty"`
	L3CacheSchemaRoot string       `json:"l3_cache_schema_root,omitempty"` // of the default class of service
	L3CacheSchema     string       `json:"l3_cache_schema,omitempty"`      // of the container's
	MemBwInfo         *MemBwInfo   `json:"mem_bw_info,omitempty"`
	MemBwSchemaRoot   string       `json:"mem_bw_schema_root,omitempty"`
	MemBwSchema       string       `json:"mem_bw_schema,omitempty"`
	MBMStats          []MBMStats   `json:"mbm_stats,omitempty"` // for each cache domain
	CMTStats          []CMTStats   `json:"cmt_stats,omitempty"` // for each cache domain
}

// L3CacheInfo is what the processor can do with its cache.
type L3CacheInfo struct {
	CbmMask    string `json:"cbm_mask,omitempty"`
	MinCbmBits uint64 `json:"min_cbm_bits,omitempty"`
	NumClosids uint64 `json:"num_closids,omitempty"`
}

// MemBwInfo is what the processor can do with memory bandwidth.
type MemBwInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumClosids    uint64 `json:"num_closids,omitempty"`
}

// MBMStats are bytes read from and written to memory.
type MBMStats struct {
	Total uint64 `json:"mbm_total_bytes"`
	Local uint64 `json:"mbm_local_bytes"`
}

// CMTStats is the size in bytes of the cache that is occupied.
type CMTStats struct {
	Occupancy uint64 `json:"llc_occupancy"`
}

// Stats reads the statistics of g. What the processor does not have is left out.
func (f *FS) Stats(g *Group) (*Stats, error) {
	s := &Stats{}
	info := filepath.Join(f.Root, "info")
	if dir := filepath.Join(info, "L3"); isDir(dir) {
		s.L3CacheInfo = &L3CacheInfo{CbmMask: text(dir, "cbm_mask"), MinCbmBits: number(dir, "min_cbm_bits"), NumClosids: number(dir, "num_closids")}
	}
	if dir := filepath.Join(info, "MB"); isDir(dir) {
		s.MemBwInfo = &MemBwInfo{BandwidthGran: number(dir, "bandwidth_gran"), DelayLinear: number(dir, "delay_linear"),
			MinBandwidth: number(dir, "min_bandwidth"), NumClosids: number(dir, "num_closids")}
	}
	for _, side := range []struct {
		g      *Group
		l3, mb *string
	}{{&Group{Dir: f.Root}, &s.L3CacheSchemaRoot, &s.MemBwSchemaRoot}, {g, &s.L3CacheSchema, &s.MemBwSchema}} {
		lines, err := f.read(side.g)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			switch resource(l) {
			case "L3":
				*side.l3 = l
			case "MB":
				*side.mb = l
			}
		}
	}
	f.monitored(g, s)
	return s, nil
}

// monitored reads the counters of the monitoring group, or without one those of the class of service.
func (f *FS) monitored(g *Group, s *Stats) {
	dir := g.Dir
	if g.Monitor != "" {
		dir = g.Monitor
	}
	dir = filepath.Join(dir, "mon_data")
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return
	}
	for _, e := range entries {
		domain := filepath.Join(dir, e.Name())
		if !strings.HasPrefix(e.Name(), "mon_L3_") {
			continue
		}
		if _, err := os.Stat(filepath.Join(domain, "llc_occupancy")); err == nil {
			s.CMTStats = append(s.CMTStats, CMTStats{number(domain, "llc_occupancy")})
		}
		if _, err := os.Stat(filepath.Join(domain, "mbm_total_bytes")); err == nil {
			s.MBMStats = append(s.MBMStats, MBMStats{number(domain, "mbm_total_bytes"), number(domain, "mbm_local_bytes")})
		}
	}
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

func text(dir, file string) string {
	data, _ := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(data))
}

// number is a file's number, 0 for one that is not there or says "Unavailable".
func number(dir, file string) uint64 {
	n, _ := strconv.ParseUint(text(dir, file), 10, 64)
	return n
}
