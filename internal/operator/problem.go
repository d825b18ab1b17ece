package operator

import (
	"fmt"
	"net/http"

	"github.com/idemkv/idem"
)

const docs = "https://github.com/idemkv/idem/blob/main/docs/OPERATIONS.md#"

// The types of the admin API's problems (RFC 9457). They are stable.
const (
	// TypeNotAllowed (403): Options.Authorize refused the action.
	TypeNotAllowed = docs + "admin-not-allowed"
	// TypeCrossOrigin (403): a browser sent the request from another site.
	TypeCrossOrigin = docs + "admin-cross-origin"
	// TypeNoPage (404): the path leads nowhere.
	TypeNoPage = docs + "admin-no-page"
	// TypeNotFound (404): no live record has this hash, or this hash and fence.
	TypeNotFound = docs + "admin-not-found"
	// TypeNotReached (404): none was found among the records looked at so far. Next
	// continues.
	TypeNotReached = docs + "admin-not-reached"
	// TypeMethod (405): the method is not one of Allow.
	TypeMethod = docs + "admin-method"
	// TypeAmbiguous (409): several keys have this hash. Records has them; choose by
	// fence.
	TypeAmbiguous = docs + "admin-ambiguous"
	// TypeLost (409): the record has changed since it was shown. Record is what is there
	// now; nothing was changed.
	TypeLost = docs + "admin-lost"
	// TypeTooLarge (413): the body is too long.
	TypeTooLarge = docs + "admin-too-large"
	// TypeMedia (415): the body must be application/json.
	TypeMedia = docs + "admin-media"
	// TypeInvalid (400): a parameter or the body is out of range; Detail says which.
	TypeInvalid = docs + "admin-invalid"
	// TypeUnreadable (500): the record is damaged, or newer than this library.
	TypeUnreadable = docs + "admin-unreadable"
	// TypeNoList (501): the store's engine cannot list records.
	TypeNoList = docs + "admin-no-list"
	// TypeUnavailable (503): the store does not answer. Cause says why, in a word.
	TypeUnavailable = docs + "admin-unavailable"
)

var problems = map[string]Problem{
	TypeNotAllowed:  {Status: http.StatusForbidden, Title: "You may not do this"},
	TypeCrossOrigin: {Status: http.StatusForbidden, Title: "The request came from another site"},
	TypeNoPage:      {Status: http.StatusNotFound, Title: "There is no such page"},
	TypeNotFound:    {Status: http.StatusNotFound, Title: "There is no such record"},
	TypeNotReached:  {Status: http.StatusNotFound, Title: "The record was not found so far"},
	TypeMethod:      {Status: http.StatusMethodNotAllowed, Title: "The method is not allowed here"},
	TypeAmbiguous:   {Status: http.StatusConflict, Title: "Several keys have this hash"},
	TypeLost:        {Status: http.StatusConflict, Title: "The record has changed since it was shown"},
	TypeTooLarge:    {Status: http.StatusRequestEntityTooLarge, Title: "The body is too long"},
	TypeMedia:       {Status: http.StatusUnsupportedMediaType, Title: "The body has the wrong type"},
	TypeInvalid:     {Status: http.StatusBadRequest, Title: "The request is invalid"},
	TypeUnreadable:  {Status: http.StatusInternalServerError, Title: "The record cannot be read"},
	TypeNoList:      {Status: http.StatusNotImplemented, Title: "This engine cannot list its records"},
	TypeUnavailable: {Status: http.StatusServiceUnavailable, Title: "The store does not answer"},
}

// NewProblem returns a problem of one of the Type constants.
func NewProblem(kind, detail string) Problem {
	p := problems[kind]
	p.Type, p.Detail = kind, detail
	return p
}

// Problem is an error of the admin API (RFC 9457).
type Problem struct {
	// Type is one of the Type constants.
	Type string `json:"type"`
	// Title is Type in words.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail says what to do about it. It never holds a key.
	Detail string `json:"detail,omitempty"`
	// Cause is a word for what is wrong with the store; see Cause.
	Cause string `json:"cause,omitempty"`
	// KeyHash names the record that was asked for.
	KeyHash string `json:"key_hash,omitempty"`
	// Record is what is there now, if TypeLost.
	Record *Record `json:"record,omitempty"`
	// Records are what there is to choose from, if TypeAmbiguous, and what was found so
	// far, if TypeNotReached.
	Records []Record `json:"records,omitempty"`
	// Next continues the search, if TypeNotReached.
	Next string `json:"next,omitempty"`
}

// Error returns the title and the detail.
func (p Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Title + ": " + p.Detail
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", idem.ErrInvalid, fmt.Sprintf(format, args...))
}
