package protocol

import (
	"net/http"
	"strings"
)

// FormatNext returns the Link header that says where the next page is.
func FormatNext(target string) string { return "<" + target + `>; rel="next"` }

// ParseNext returns where the next page is, as the Link headers of a response say (RFC 8288): absolute or relative to the
// request's URL, as sent. Empty if there is none. Links that cannot be read are skipped.
func ParseNext(h http.Header) string {
	for _, value := range h.Values(HeaderLink) {
		if len(value) > MaxHeaderText {
			continue
		}
		for value != "" {
			var target string
			var next bool
			target, next, value = parseLink(value)
			if next {
				return target
			}
		}
	}
	return ""
}

// parseLink parses the first link of a list; rest is what follows its comma.
func parseLink(s string) (target string, next bool, rest string) {
	_, s, ok := strings.Cut(s, "<")
	if !ok {
		return "", false, ""
	}
	if target, s, ok = strings.Cut(s, ">"); !ok {
		return "", false, ""
	}
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == ',' {
			return target, next && target != "", strings.TrimPrefix(s, ",")
		}
		if s[0] != ';' {
			return "", false, ""
		}
		var key, value string
		if key, value, s, ok = parseParameter(s[1:]); !ok {
			return "", false, ""
		}
		if strings.EqualFold(key, "rel") {
			for _, rel := range strings.Fields(value) {
				next = next || strings.EqualFold(rel, "next")
			}
		}
	}
}

// parseParameter parses KEY, KEY=TOKEN or KEY="TEXT".
func parseParameter(s string) (key, value, rest string, ok bool) {
	end := strings.IndexAny(s, "=;,")
	if end < 0 {
		return strings.TrimSpace(s), "", "", true
	}
	key, rest = strings.TrimSpace(s[:end]), s[end:]
	if rest[0] != '=' {
		return key, "", rest, true
	}
	rest = strings.TrimLeft(rest[1:], " \t")
	if strings.HasPrefix(rest, `"`) {
		value, rest, ok = parseQuoted(rest)
		return key, value, rest, ok
	}
	if end = strings.IndexAny(rest, ";,"); end < 0 {
		end = len(rest)
	}
	return key, strings.TrimSpace(rest[:end]), rest[end:], true
}

// parseQuoted parses a quoted string of RFC 9110 section 5.6.4, which s begins with.
func parseQuoted(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// FormatWarning returns the Warning header for a text (distribution-spec "Warnings"): code 299, agent -, no date. The text
// loses control characters.
func FormatWarning(text string) string {
	return `299 - "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(printable(text, MaxWarnings/2)) + `"`
}

// ParseWarnings returns the texts of the Warning headers of a response that have the form of the specification, without
// repetitions, and without what could steer a terminal. Of all headers together MaxWarnings bytes are looked at.
func ParseWarnings(h http.Header) []string {
	var texts []string
	seen := map[string]bool{}
	left := MaxWarnings
	for _, value := range h.Values(HeaderWarning) {
		if left -= len(value); left < 0 {
			break
		}
		quoted, ok := strings.CutPrefix(value, "299 - ")
		if !ok || !strings.HasPrefix(quoted, `"`) {
			continue
		}
		text, rest, ok := parseQuoted(quoted)
		if text = printable(text, MaxWarnings); ok && rest == "" && text != "" && !seen[text] {
			seen[text] = true
			texts = append(texts, text)
		}
	}
	return texts
}
