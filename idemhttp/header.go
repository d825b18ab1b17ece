package idemhttp

import (
	"net/http"
	"slices"
	"strings"
)

// DefaultKeepHeader is the default of Options.KeepHeader: all but Set-Cookie, because a
// cookie is meant for the first client, at that time.
func DefaultKeepHeader(name string) bool { return name != "Set-Cookie" && name != "Set-Cookie2" }

// ofOneConnection are the fields that are about one connection or one sending of the
// answer (RFC 9110, sections 7.6.1 and 6.6.1). They are never stored.
var ofOneConnection = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authentication-Info": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Content-Length": true, "Date": true,
}

// encoded reports whether h, as middleware further out has set it, announces a content
// coding. That middleware then encodes what is written, and the length changes
// (http.ServeContent has the same rule). It does what Get does, without canonicalizing the
// name, because each replay calls it.
func encoded(h http.Header) bool {
	values := h["Content-Encoding"]
	return len(values) > 0 && values[0] != ""
}

// changes returns the changes that turn the header before into after, for the fields that
// are stored. A field that middleware further out had set, and that is still as it was, is
// not the handler's: a replay gets it from that middleware anew.
func (m *middleware) changes(before, after http.Header) []field {
	fields := make([]field, 0, len(after))
	var listed []string // the fields that Connection names
	for _, line := range after["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			listed = append(listed, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	stored := func(name string) bool {
		name = http.CanonicalHeaderKey(name)
		return !ofOneConnection[name] && name != m.o.ReplayedHeader && !strings.HasPrefix(name, http.TrailerPrefix) &&
			!slices.Contains(listed, name) && m.o.KeepHeader(name)
	}
	for name, values := range after {
		old, had := before[name]
		if had && slices.Equal(old, values) || !stored(name) {
			continue
		}
		f := field{name: name, values: values}
		if n := len(old); n > 0 && n < len(values) && slices.Equal(old, values[:n]) {
			f.values, f.add = values[n:], true
		}
		fields = append(fields, f)
	}
	for name := range before {
		if _, kept := after[name]; !kept && stored(name) {
			fields = append(fields, field{name: name})
		}
	}
	return fields
}

// restore makes h what want is, in place: h is the map that the ResponseWriter sends.
func restore(h, want http.Header) {
	clear(h)
	for name, values := range want {
		h[name] = values
	}
}
