package observe

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tare-oci/tare/distribution/protocol"
)

// maxText is how much of a stranger's text is in a line, in bytes.
const maxText = 1024

// logged are the parameters of queries that are written. The others may be anything: a token, a password typed into the wrong
// place, the signature of an address.
var logged = []string{protocol.QueryDigest, protocol.QueryDigestAlgorithm, protocol.QueryMount, protocol.QueryFrom, protocol.QueryN,
	protocol.QueryLast, protocol.QueryArtifactType, protocol.QueryTag, protocol.QueryNamespace, "scope", "service"}

// entry is a line of the log. Times are in seconds, UTC.
type entry struct {
	Time     string  `json:"time"`
	Remote   string  `json:"remote"`
	User     string  `json:"user,omitempty"`
	Method   string  `json:"method"`
	Host     string  `json:"host"`
	Path     string  `json:"path"`
	Query    string  `json:"query,omitempty"`
	Proto    string  `json:"proto"`
	Status   int     `json:"status"`
	In       int64   `json:"in"`
	Out      int64   `json:"out"`
	Duration float64 `json:"duration"`
	Agent    string  `json:"agent,omitempty"`
}

// line returns a line of the access log with its newline.
func (o *Observer) line(r *http.Request, rec *record, status int, out int64, took time.Duration) []byte {
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	e := entry{Time: rec.begin.UTC().Format("2006-01-02T15:04:05.000Z"), Remote: remote, User: cut(rec.user), Method: cut(r.Method), Host: cut(r.Host),
		Path: cut(r.URL.Path), Query: cut(query(r.URL)), Proto: r.Proto, Status: status, In: rec.in, Out: out, Duration: took.Seconds(), Agent: cut(r.UserAgent())}
	if o.opts.Common {
		return e.common(rec.begin)
	}
	data, err := json.Marshal(e)
	if err != nil { // texts and numbers always encode
		panic(fmt.Sprintf("encode log: %v", err))
	}
	return append(data, '\n')
}

// common is the combined format of Apache: host ident user [time] "request" status bytes "referer" "agent".
func (e entry) common(at time.Time) []byte {
	target := e.Path
	if e.Query != "" {
		target += "?" + e.Query
	}
	user := "-"
	if e.User != "" {
		user = word(e.User)
	}
	return fmt.Appendf(nil, "%s - %s [%s] %s %d %d \"-\" %s\n", word(e.Remote), user, at.Format("02/Jan/2006:15:04:05 -0700"),
		ascii(e.Method+" "+target+" "+e.Proto), e.Status, e.Out, ascii(e.Agent))
}

// ascii quotes a text so that it has no quote, line end or control character of its own.
func ascii(s string) string { return strconv.QuoteToASCII(s) }

// word is a text without spaces and what would have to be quoted.
func word(s string) string {
	return strings.ReplaceAll(strings.Trim(ascii(s), `"`), " ", `\x20`)
}

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

// query is what may be written of a query; of what is left out only the number.
func query(u *url.URL) string {
	if u.RawQuery == "" {
		return ""
	}
	all, keep, left := u.Query(), url.Values{}, 0
	for k, v := range all {
		if slices.Contains(logged, k) {
			keep[k] = v
		} else {
			left++
		}
	}
	text := keep.Encode()
	if left > 0 {
		text = strings.TrimPrefix(text+"&(hidden)="+strconv.Itoa(left), "&")
	}
	return text
}
