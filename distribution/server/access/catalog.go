package access

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tare-oci/tare/distribution/protocol"
)

const (
	defaultPage = 100  // repositories of a page of the catalog
	maxPage     = 1000 // whatever n asks for (CVE-2023-2253)
	scanPage    = 1000 // names that are asked of the registry at once
)

// serveCatalog lists the repositories that somebody may read. It makes the pages itself: the registry's own would tell by
// their length and by where they end that there is something between.
func (g *Guard) serveCatalog(w http.ResponseWriter, r *http.Request, who identity) {
	q := r.URL.Query()
	n := defaultPage
	if s := q.Get(protocol.QueryN); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 0 {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("n=%.20q is not a number of repositories", s))
			return
		}
		n = min(n, maxPage)
	}
	names, more, err := g.readable(r, who, q.Get(protocol.QueryLast), n)
	if err != nil {
		refuse(w, http.StatusInternalServerError, err.Error())
		return
	}
	if more && n > 0 {
		next := url.Values{protocol.QueryN: {strconv.Itoa(n)}, protocol.QueryLast: {names[len(names)-1]}}
		w.Header().Set(protocol.HeaderLink, protocol.FormatNext("/v2/_catalog?"+next.Encode()))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(protocol.HeaderAPIVersion, protocol.APIVersion)
	_ = json.NewEncoder(w).Encode(map[string][]string{"repositories": names}) // who has gone needs no answer
}

// readable returns at most n names after last that somebody may read, and whether there are more.
func (g *Guard) readable(r *http.Request, who identity, last string, n int) (names []string, more bool, err error) {
	names = []string{}
	if n == 0 {
		return names, false, nil
	}
	for {
		batch, others, err := g.Repositories(r.Context(), last, scanPage)
		if err != nil {
			return nil, false, err
		}
		for _, name := range batch {
			if who.token != nil && !who.own || includes(g.byPolicy(who, name), Pull) {
				if len(names) == n {
					return names, true, nil
				}
				names = append(names, name)
			}
		}
		if !others || len(batch) == 0 {
			return names, false, nil
		}
		last = batch[len(batch)-1]
	}
}
