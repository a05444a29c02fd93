package observe

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/tare-oci/tare/distribution/protocol"
)

// route is a kind of path: those of package protocol, and what is beside the API.
type route uint8

const (
	routeOther route = 0
	routeToken route = route(protocol.Referrers) + iota
	routePages
	routes
)

// names of the routes in the metrics.
var names = [routes]string{routeOther: "other", routeToken: "token", routePages: "pages", route(protocol.Base): "base",
	route(protocol.Catalog): "catalog", route(protocol.Blob): "blob", route(protocol.Manifest): "manifest", route(protocol.Uploads): "uploads",
	route(protocol.Upload): "upload", route(protocol.Tags): "tags", route(protocol.Referrers): "referrers"}

// methods that have a name of their own in the metrics; there are as many others as clients can think of.
var methods = [...]string{"other", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// bounds of the histograms in seconds: a manifest takes less than a millisecond, a large layer minutes.
var bounds = [...]float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}

// meter has the counters. What is counted for each request is found without a lock.
type meter struct {
	set      *metrics.Set
	underWay atomic.Int64
	in, out  *metrics.Counter
	requests [routes][len(methods)][500]atomic.Pointer[metrics.Counter]
	took     [routes]histogram
}

// histogram counts durations by bounds, in the way of Prometheus.
type histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64
	nanos   atomic.Uint64
}

func newMeter() *meter {
	m := &meter{set: metrics.NewSet()}
	m.in = m.set.NewCounter("tared_http_request_bytes_total")
	m.out = m.set.NewCounter("tared_http_response_bytes_total")
	m.set.NewGauge("tared_http_requests_under_way", func() float64 { return float64(m.underWay.Load()) })
	m.set.RegisterMetricsWriter(m.writeHistograms)
	return m
}

// count adds a request.
func (m *meter) count(r route, method string, status int, in, out int64, took time.Duration) {
	i := 0
	for j, name := range methods {
		if name == method {
			i = j
		}
	}
	slot := &m.requests[r][i][min(max(status-100, 0), 499)]
	c := slot.Load()
	if c == nil {
		c = m.set.GetOrCreateCounter(fmt.Sprintf("tared_http_requests_total{route=%q,method=%q,code=\"%d\"}", names[r], methods[i], status))
		slot.Store(c)
	}
	c.Inc()
	m.in.AddInt64(in)
	m.out.AddInt64(out)
	h := &m.took[r]
	b := 0
	for b < len(bounds) && took.Seconds() > bounds[b] {
		b++
	}
	h.buckets[b].Add(1)
	h.nanos.Add(uint64(max(took, 0)))
}

func (m *meter) writeHistograms(w io.Writer) {
	const name = "tared_http_request_duration_seconds"
	metrics.WriteMetadataIfNeeded(w, name, "histogram")
	for r := range m.took {
		h := &m.took[r]
		var sum uint64
		counts := [len(h.buckets)]uint64{}
		for b := range h.buckets {
			sum += h.buckets[b].Load()
			counts[b] = sum
		}
		if sum == 0 {
			continue
		}
		for b, bound := range bounds {
			fmt.Fprintf(w, "%s_bucket{route=%q,le=\"%g\"} %d\n", name, names[r], bound, counts[b])
		}
		fmt.Fprintf(w, "%s_bucket{route=%q,le=\"+Inf\"} %d\n", name, names[r], sum)
		fmt.Fprintf(w, "%s_sum{route=%q} %g\n", name, names[r], float64(h.nanos.Load())/1e9)
		fmt.Fprintf(w, "%s_count{route=%q} %d\n", name, names[r], sum)
	}
}

// Gauge adds a value that value returns when the metrics are read. The name is Prometheus', with labels or without.
func (o *Observer) Gauge(name string, value func() float64) { o.metrics.set.NewGauge(name, value) }

// Add adds to a counter.
func (o *Observer) Add(name string, n int) { o.metrics.set.GetOrCreateCounter(name).Add(n) }

// MetricsHandler serves the metrics, with those of the process, in the text format of Prometheus.
func (o *Observer) MetricsHandler() http.Handler {
	metrics.ExposeMetadata(true)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			plain(w, http.StatusMethodNotAllowed, "only GET\n")
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		o.metrics.set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
		metrics.WriteFDMetrics(w)
	})
}
