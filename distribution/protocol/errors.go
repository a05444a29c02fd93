package protocol

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"
)

// Code is an error's identifier in an error document.
type Code string

// The codes of distribution-spec "Error Codes". There are no others.
const (
	CodeBlobUnknown         Code = "BLOB_UNKNOWN"
	CodeBlobUploadInvalid   Code = "BLOB_UPLOAD_INVALID"
	CodeBlobUploadUnknown   Code = "BLOB_UPLOAD_UNKNOWN"
	CodeDigestInvalid       Code = "DIGEST_INVALID"
	CodeManifestBlobUnknown Code = "MANIFEST_BLOB_UNKNOWN"
	CodeManifestInvalid     Code = "MANIFEST_INVALID"
	CodeManifestUnknown     Code = "MANIFEST_UNKNOWN"
	CodeNameInvalid         Code = "NAME_INVALID"
	CodeNameUnknown         Code = "NAME_UNKNOWN"
	CodeSizeInvalid         Code = "SIZE_INVALID"
	CodeUnauthorized        Code = "UNAUTHORIZED"
	CodeDenied              Code = "DENIED"
	CodeUnsupported         Code = "UNSUPPORTED"
	CodeTooManyRequests     Code = "TOOMANYREQUESTS"
)

// Error is one entry of an error document.
type Error struct {
	Code    Code            `json:"code"`
	Message string          `json:"message,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"` // any JSON; nil for none
}

func (e Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Message
}

// Errors is an error document. As an error it has the text of all of its entries on one line.
type Errors []Error

func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i := range e {
		texts[i] = e[i].Error()
	}
	return strings.Join(texts, "; ")
}

// Has reports whether one of the errors has the code.
func (e Errors) Has(code Code) bool {
	for i := range e {
		if e[i].Code == code {
			return true
		}
	}
	return false
}

// Encode returns the document: {"errors":[…]}. A detail that is not JSON is left out.
func (e Errors) Encode() []byte {
	doc := struct {
		Errors []Error `json:"errors"`
	}{make([]Error, len(e))}
	copy(doc.Errors, e)
	for i := range doc.Errors {
		if !json.Valid(doc.Errors[i].Detail) {
			doc.Errors[i].Detail = nil
		}
	}
	data, err := json.Marshal(doc)
	if err != nil { // strings and valid JSON always encode
		panic(fmt.Sprintf("encode errors: %v", err))
	}
	return data
}

// DecodeErrors reads an error document. Body may be anything: what is not an error document, or has no errors, gives nil. Of
// a longer body only MaxErrorBody bytes are looked at, of more errors the first MaxErrors are kept. Control characters in
// codes and messages become spaces: the texts are for a person's terminal.
func DecodeErrors(body []byte) Errors {
	if len(body) > MaxErrorBody {
		return nil
	}
	var doc struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message json.RawMessage `json:"message"` // a string; some registries send others
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil
	}
	var errs Errors
	for _, d := range doc.Errors[:min(len(doc.Errors), MaxErrors)] {
		var message string
		if json.Unmarshal(d.Message, &message) != nil {
			message = ""
		}
		if d.Code != "" || message != "" {
			errs = append(errs, Error{Code: Code(printable(d.Code, 64)), Message: printable(message, 1024), Detail: d.Detail})
		}
	}
	return errs
}

// Status returns the status that goes with a code where nothing else is known. TOOMANYREQUESTS, for example, is 429.
func (c Code) Status() int {
	switch c {
	case CodeBlobUnknown, CodeBlobUploadUnknown, CodeManifestUnknown, CodeNameUnknown, CodeManifestBlobUnknown:
		return http.StatusNotFound
	case CodeUnauthorized:
		return http.StatusUnauthorized
	case CodeDenied:
		return http.StatusForbidden
	case CodeUnsupported:
		return http.StatusMethodNotAllowed
	case CodeTooManyRequests:
		return http.StatusTooManyRequests
	}
	return http.StatusBadRequest
}

// printable cuts a stranger's text and takes out of it what could steer a terminal.
func printable(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s))
}
