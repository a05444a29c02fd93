package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tare-oci/tare/distribution/auth"
	"github.com/tare-oci/tare/distribution/protocol"
	"github.com/tare-oci/tare/image/reference"
	"github.com/tare-oci/tare/internal/ijson"
)

// pageSize is how many entries are asked for at once: the most that many registries allow.
const pageSize = 1000

// Tags calls each with the tags of the repository in the registry's order, page by page, until each returns an error, which
// Tags returns. last, if not empty, is the tag after which the list begins. The error wraps content.ErrNotFound if there is
// no such repository.
func (r *Repository) Tags(ctx context.Context, last string, each func(tag string) error) error {
	if last != "" {
		if err := reference.CheckTag(last); err != nil {
			return err
		}
	}
	l := &lister{c: r.c, req: r.request("list tags", http.MethodGet, nil, "pull"), path: protocol.TagsPath(r.name),
		names: func(raw []byte) ([]string, error) {
			var page struct {
				Tags []string `json:"tags"` // null from some registries
			}
			err := ijson.Unmarshal(raw, &page)
			return page.Tags, err
		}}
	return l.run(ctx, last, reference.CheckTag, each)
}

// Catalog calls each with the names of the registry's repositories, as Tags does. Many registries do not have this list, or
// not for everybody.
func (c *Client) Catalog(ctx context.Context, last string, each func(name string) error) error {
	if last != "" {
		if err := protocol.CheckName(last); err != nil {
			return err
		}
	}
	req := &request{op: "list repositories of " + c.origin.Host(), method: http.MethodGet, scopes: []auth.Scope{auth.Catalog()}}
	l := &lister{c: c, req: req, path: "/v2/_catalog", names: func(raw []byte) ([]string, error) {
		var page struct {
			Repositories []string `json:"repositories"`
		}
		err := ijson.Unmarshal(raw, &page)
		return page.Repositories, err
	}}
	return l.run(ctx, last, protocol.CheckName, each)
}

// lister reads a list in pages.
type lister struct {
	c     *Client
	req   *request
	path  string
	names func(raw []byte) ([]string, error)

	entries     int
	first, last string // of the page before
}

func (l *lister) run(ctx context.Context, last string, check, each func(string) error) error {
	size := pageSize
	next := l.page(size, last)
	for pages := 0; next != nil; pages++ {
		if pages == l.c.opt.Limits.Pages {
			return tooMuch("Pages", "%s: more than the limit of %d pages", l.req.op, pages)
		}
		req := *l.req
		req.url = next
		raw, resp, err := l.c.body(ctx, &req, "list", l.c.opt.Limits.List)
		if status(err) == http.StatusBadRequest && pages == 0 && size > 0 { // a page that large is not allowed
			size = 0
			next = l.page(size, last)
			continue
		}
		if err != nil {
			return err
		}
		names, err := l.names(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", l.req.op, err)
		}
		if len(names) > 0 && pages > 0 && (names[0] == l.first || names[len(names)-1] == l.last) {
			return nil // the registry knows no pages: this is the same one again
		}
		if err := l.give(names, check, each); err != nil {
			return err
		}
		if next, err = l.next(resp, next, len(names), size); err != nil {
			return err
		}
	}
	return nil
}

// page returns the address of a page after last; size 0: of any size.
func (l *lister) page(size int, last string) *url.URL {
	var query []string
	if size > 0 {
		query = append(query, protocol.QueryN, strconv.Itoa(size))
	}
	if last != "" {
		query = append(query, protocol.QueryLast, last)
	}
	return l.c.url(l.path, query...)
}

func (l *lister) give(names []string, check, each func(string) error) error {
	for i, unsafe := range names {
		if err := check(unsafe); err != nil {
			return fmt.Errorf("%s: the registry lists a %w", l.req.op, err)
		}
		if l.entries++; l.entries > l.c.opt.Limits.Entries {
			return tooMuch("Entries", "%s: more than the limit of %d entries", l.req.op, l.c.opt.Limits.Entries)
		}
		if err := each(unsafe); err != nil {
			return err
		}
		if i == 0 {
			l.first = unsafe
		}
		l.last = unsafe
	}
	return nil
}

// next returns the address of the page after the one at cur: what Link says, else, where the page is full, that by last.
func (l *lister) next(resp *http.Response, cur *url.URL, got, size int) (*url.URL, error) {
	next, err := l.c.nextPage(resp)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.req.op, err)
	}
	if next == nil && got == size && size > 0 {
		next = l.page(size, l.last)
	}
	if next != nil && next.String() == cur.String() {
		return nil, fmt.Errorf("%s: a page names itself as the next one", l.req.op)
	}
	return next, nil
}

// nextPage returns what a response names as the next page, nil if it is the last one. It is at the registry's own origin.
func (c *Client) nextPage(resp *http.Response) (*url.URL, error) {
	unsafe := protocol.ParseNext(resp.Header)
	if unsafe == "" {
		return nil, nil
	}
	next, err := resp.Request.URL.Parse(unsafe)
	if err != nil {
		return nil, fmt.Errorf("address of the next page %.200q is malformed", unsafe)
	}
	if o, err := auth.OriginOf(next); err != nil || o != c.origin {
		return nil, fmt.Errorf("address of the next page %.200q is not on %s", unsafe, c.origin)
	}
	next.Fragment = ""
	return next, nil
}
