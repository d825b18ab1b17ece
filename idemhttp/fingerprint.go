package idemhttp

import (
	"encoding/binary"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/idemkv/idem"
)

// RequestFingerprint is the default of Options.Fingerprint: idem.FingerprintOf of the
// method, the target and the body. The target is the path and query as the client sent
// them, whatever routers have made of them since. The host and the header fields are not
// part of it. body is neither changed nor kept.
func RequestFingerprint(r *http.Request, body []byte) (idem.Fingerprint, error) {
	return idem.FingerprintOf([]byte(r.Method), []byte(target(r)), body), nil
}

// JSONFingerprint is RequestFingerprint for JSON bodies that are compared by meaning: the
// body is put into its canonical form first ([idem.CanonicalJSON]). The order of members
// and white space do not matter, values do, and numbers compare exactly. It returns a
// Problem for a body that is not JSON: 415 if its Content-Type names anything else, 400 if
// it is not valid JSON. The detail of the 400 says at which byte and why, and quotes
// nothing of the body. An empty body is taken as it is.
func JSONFingerprint(r *http.Request, body []byte) (idem.Fingerprint, error) {
	if len(body) == 0 {
		return RequestFingerprint(r, body)
	}
	if t := r.Header.Get("Content-Type"); t != "" && !isJSON(t) {
		return idem.Fingerprint{}, reason("media-type", problem(TypeNotJSON, http.StatusUnsupportedMediaType, "The body must be JSON, and its Content-Type says that it is not."))
	}
	canonical, err := idem.CanonicalJSON(body)
	if err != nil {
		why := strings.TrimPrefix(err.Error(), idem.ErrInvalid.Error()+": ") // "JSON: at byte 7: …", and nothing of the body
		return idem.Fingerprint{}, because(err, reason("json", problem(TypeNotJSON, http.StatusBadRequest, "The body cannot be read as "+why+".")))
	}
	return RequestFingerprint(r, canonical)
}

// isJSON reports whether a Content-Type names JSON: application/json or a type that
// ends in +json.
func isJSON(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// target returns the path and query as the client sent them. A request that did not come
// through a server has no RequestURI. That of a request in absolute form, as proxies send
// it, has more.
func target(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		return u.RequestURI()
	}
	return r.URL.RequestURI()
}

// appendPart appends part as idem.FingerprintOf hashes it: preceded by its length.
func appendPart(b []byte, part string) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
	return append(b, part...)
}
