// Package web has pages for people: what repositories, tags and images a registry has. They are made by the server, need no
// script, change nothing, and show only what their reader may pull. Names, labels and annotations were written by strangers.
package web

import (
	"bytes"
	_ "embed" // the page and its style
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/distribution/server/storage"
	"github.com/tare-oci/tare/image/reference"
)

const (
	pageSize = 50   // repositories, tags or referrers of a page
	scanSize = 500  // repositories that are asked of the storage at once
	maxRows  = 500  // of a table that a manifest makes
	maxText  = 4000 // bytes of a stranger's text
)

//go:embed page.html
var pageHTML string

//go:embed style.css
var style []byte

// Options are what the pages show, and to whom.
type Options struct {
	Storage storage.Storage
	Title   string
	// CanPull reports whether who sent a request may see a repository; nil: everybody may see everything.
	CanPull func(r *http.Request, repository string) bool
	// User returns who sent a request, for the page's head; nil if nobody can log in.
	User func(r *http.Request) string
	// Fault is told what went wrong with the storage; may be nil.
	Fault func(r *http.Request, err error)
}

// Pages serves the pages.
type Pages struct{ Options }

// New returns the pages.
func New(o Options) *Pages { return &Pages{o} }

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"text": text, "size": formatSize, "short": short, "inc": func(i int) int { return i + 1 },
}).Parse(pageHTML))

// head is what every page has.
type head struct {
	Title, Heading, User string
	Login                bool
	First, Next          string // addresses of other pages of a list
	Problem              string
}

// policy lets a page load its style and nothing else, from nowhere else.
const policy = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP serves GET and HEAD for /, /style.css and what is below /r/.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "private, no-cache")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		p.show(w, r, http.StatusMethodNotAllowed, "error", p.failure(r, "Only reading", "Nothing can be changed here."))
		return
	}
	var err error
	switch name, below := strings.CutPrefix(r.URL.Path, "/r/"); {
	case r.URL.Path == "/style.css":
		h.Set("Content-Type", "text/css; charset=utf-8")
		h.Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(style)
	case r.URL.Path == "/":
		err = p.repositories(w, r)
	case below:
		err = p.below(w, r, name)
	default:
		err = errNothing
	}
	if err != nil {
		p.fail(w, r, err)
	}
}

// errNothing is for what is not there and for what its reader may not see: nobody learns which it is.
var errNothing = errors.New("nothing here")

func (p *Pages) fail(w http.ResponseWriter, r *http.Request, err error) {
	for _, unknown := range []error{errNothing, storage.ErrRepositoryUnknown, storage.ErrManifestUnknown, storage.ErrTagUnknown} {
		if errors.Is(err, unknown) {
			p.show(w, r, http.StatusNotFound, "error", p.failure(r, "Nothing here", "There is no such thing, or you may not see it."))
			return
		}
	}
	if p.Fault != nil {
		p.Fault(r, err)
	}
	p.show(w, r, http.StatusInternalServerError, "error", p.failure(r, "The registry cannot answer", "Who runs it has been told why."))
}

func (p *Pages) failure(r *http.Request, heading, problem string) head {
	h := p.head(r, heading)
	h.Problem = problem
	return h
}

func (p *Pages) head(r *http.Request, heading string) head {
	h := head{Title: p.Title, Heading: heading, Login: p.User != nil}
	if p.User != nil {
		h.User = p.User(r)
	}
	return h
}

// show writes a page as a whole, or nothing of it.
func (p *Pages) show(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		if p.Fault != nil {
			p.Fault(r, err)
		}
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes())
}

func (p *Pages) canPull(r *http.Request, repository string) bool {
	return p.CanPull == nil || p.CanPull(r, repository)
}

// repositories lists what its reader may see.
func (p *Pages) repositories(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if name := strings.TrimSpace(q.Get("name")); name != "" {
		if repo, _, _ := split(name); repo == "" {
			return errNothing
		}
		http.Redirect(w, r, (&url.URL{Path: "/r/" + name}).String(), http.StatusSeeOther)
		return nil
	}
	page := struct {
		head
		Repositories []string
	}{head: p.head(r, "")}
	after := q.Get("after")
	if after != "" {
		page.First = "/"
	}
	for {
		names, more, err := p.Storage.ListRepositories(r.Context(), after, scanSize)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !p.canPull(r, name) {
				continue
			}
			if len(page.Repositories) == pageSize {
				page.Next = "/?after=" + url.QueryEscape(page.Repositories[pageSize-1])
				p.show(w, r, http.StatusOK, "repositories", page)
				return nil
			}
			page.Repositories = append(page.Repositories, name)
		}
		if !more || len(names) == 0 {
			p.show(w, r, http.StatusOK, "repositories", page)
			return nil
		}
		after = names[len(names)-1]
	}
}

// split takes NAME, NAME:TAG or NAME@DIGEST apart; the name is empty if it is none of them.
func split(s string) (name, ref string, byDigest bool) {
	name = s
	if i := strings.IndexAny(s, ":@"); i >= 0 {
		name, ref, byDigest = s[:i], s[i+1:], s[i] == '@'
		if ref == "" || strings.Contains(ref, "/") {
			return "", "", false
		}
	}
	if protocol.CheckName(name) != nil {
		return "", "", false
	}
	return name, ref, byDigest
}

// below serves a repository or one of its manifests.
func (p *Pages) below(w http.ResponseWriter, r *http.Request, path string) error {
	name, ref, byDigest := split(path)
	if name == "" || !p.canPull(r, name) {
		return errNothing
	}
	if ref == "" {
		return p.repository(w, r, name)
	}
	if !byDigest && reference.CheckTag(ref) != nil {
		return errNothing
	}
	return p.manifest(w, r, name, ref, byDigest)
}

// text is a stranger's text without what could hide or turn around what is beside it, and not longer than a page is good for.
func text(s string) string {
	cut := false
	if len(s) > maxText {
		s, cut = s[:maxText], true
	}
	var b strings.Builder
	for _, c := range s {
		switch {
		case c == '\n' || c == '\t' || unicode.IsPrint(c):
			b.WriteRune(c)
		default:
			fmt.Fprintf(&b, "\\u%04x", c)
		}
	}
	if cut {
		b.WriteString(" …")
	}
	return b.String()
}

// short is a digest as people compare them, or a tag as it is.
func short(ref any) string {
	s := fmt.Sprint(ref)
	if alg, encoded, ok := strings.Cut(s, ":"); ok && len(encoded) > 12 {
		return alg + ":" + encoded[:12]
	}
	return s
}

func formatSize(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1000 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	return fmt.Sprintf("%.3g %ciB", f, units[u])
}
