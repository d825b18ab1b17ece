package idemhttp

import (
	"fmt"
	"net/http"

	"github.com/idemkv/idem"
)

// sendable returns an error for a request that no RoundTripper of HTTP can send,
// however often it tries: that would be the same error every time, after waits. Other
// schemes are left to Base.
func sendable(r *http.Request) error {
	switch {
	case r.URL == nil:
		return fmt.Errorf("%w: the request has no URL", idem.ErrInvalid)
	case !overHTTP(r):
		return nil
	case r.URL.Host == "":
		return fmt.Errorf("%w: the request's URL has no host", idem.ErrInvalid)
	}
	for _, h := range []http.Header{r.Header, r.Trailer} {
		for name, values := range h {
			if name == "" || span(name, isTchar) != len(name) {
				return fmt.Errorf("%w: the request has a header field of the name %q, which is no name (RFC 9110, section 5.1)", idem.ErrInvalid, name)
			}
			for _, v := range values {
				if hasControl(v) { // it may be a secret, and is not shown
					return fmt.Errorf("%w: the request's header field %s has a control character in its value", idem.ErrInvalid, name)
				}
			}
		}
	}
	return nil
}

func overHTTP(r *http.Request) bool { return r.URL.Scheme == "http" || r.URL.Scheme == "https" }

func hasControl(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}
