package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/tare-oci/tare/distribution/protocol"
)

// maxPage is the most entries of a page, whatever a client asks for (CVE-2023-2253).
const maxPage = 10000

// listTags lists the tags of a repository (end-8).
func (s *Server) listTags(w http.ResponseWriter, r *http.Request, p protocol.Path) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	tags, more, err := s.storage.ListTags(r.Context(), p.Name, last, max(n, 1))
	if err != nil {
		return err
	}
	if n == 0 {
		tags, more = nil, false
	}
	if more {
		next(w, r, tags[len(tags)-1], n)
	}
	return list(w, r, struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{p.Name, notNull(tags)})
}

// catalog lists the repositories, in the form of Docker's registry.
func (s *Server) catalog(w http.ResponseWriter, r *http.Request, _ protocol.Path) error {
	n, last, err := page(r)
	if err != nil {
		return err
	}
	names, more, err := s.storage.ListRepositories(r.Context(), last, max(n, 1))
	if err != nil {
		return err
	}
	if n == 0 {
		names, more = nil, false
	}
	if more {
		next(w, r, names[len(names)-1], n)
	}
	return list(w, r, struct {
		Repositories []string `json:"repositories"`
	}{notNull(names)})
}

// page reads the parameters of a list. A number that is larger than a page can be is as the largest page.
func page(r *http.Request) (n int, last string, err error) {
	q := r.URL.Query()
	n, last = maxPage, q.Get(protocol.QueryLast)
	if !q.Has(protocol.QueryN) {
		return n, last, nil
	}
	text := q.Get(protocol.QueryN)
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, "", refuse(http.StatusBadRequest, protocol.CodeUnsupported, "n=%s: want a number from 0", printable(text))
	}
	if asked, err := strconv.Atoi(text); err == nil {
		n = min(asked, maxPage)
	}
	return n, last, nil
}

// next says where the list goes on.
func next(w http.ResponseWriter, r *http.Request, last string, n int) {
	q := r.URL.Query()
	q.Set(protocol.QueryLast, last)
	q.Set(protocol.QueryN, strconv.Itoa(n))
	to := url.URL{Path: r.URL.Path, RawQuery: q.Encode()}
	w.Header()[protocol.HeaderLink] = []string{protocol.FormatNext(to.String())}
}

func list(w http.ResponseWriter, r *http.Request, doc any) error {
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	return writeJSON(w, r, http.StatusOK, "application/json", data)
}

func notNull(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
