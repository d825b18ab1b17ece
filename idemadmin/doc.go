// Package idemadmin serves pages and a JSON API for the person on call: what the store
// holds, what is stuck and why, one record in full, and settling it.
//
// [New] returns an http.Handler for any prefix. It needs to know who may do what:
//
//	admin, err := idemadmin.New(store, idemadmin.Options{
//		Authorize: func(r *http.Request, a idemadmin.Action) (who string, ok bool) {
//			user := session(r)
//			return user.Name, user.OnCall
//		},
//	})
//	mux.Handle("/admin/idem/", http.StripPrefix("/admin/idem", admin))
//
// The pages work without JavaScript and on a phone. They use relative links only, so a
// proxy may serve them under another prefix.
//
// # What it shows
//
// Keys and payloads are hidden until Options.Reveal says otherwise. A record is named by
// the hash of its key (idem.Store.KeyHash), which is also what logs and events contain,
// and by its fence. Two keys may share a hash; then both are shown and the fence
// tells them apart. An operator who has a key or a token finds its record by a form
// that keeps the key out of the URL.
//
// # What it does
//
// Complete, Fail, Release, Hold and Forget are done by the fence that the operator saw,
// after a second page has said what they mean. If another claim or another operator was
// faster, nothing is changed, and the answer (409) shows what is there now. Each attempt
// to settle, refused ones included, is written to Options.Logger with who, what, key
// hash, fence and outcome.
//
// # The JSON API
//
// Below the prefix, errors are application/problem+json (RFC 9457) with stable types:
//
//	GET  api/stats
//	GET  api/health
//	GET  api/records?state=&prefix=&hash=&unsettled=1&stuck=&limit=&after=
//	GET  api/records/{hash}?fence=&after=
//	POST api/find                              {"key": …} or {"key_hex": …} or {"token": …}
//	POST api/records/{hash}/{fence}/{action}   {"format": "json", "payload": "…", "state": "held"}
//
// stuck is any, held, unknown, exhausted, lapsed or released. Formats are text, json,
// hex and http (a status line, header lines, an empty line and a body, for idemhttp to
// replay). The command line tool speaks this API with its -url.
//
// # Bounds
//
// No answer looks at more than Options.Look stored records. A list that ends there says
// so and goes on from that place. Counting all records takes a walk over the whole
// store, so the counts are kept for a few seconds on the store's clock, and longer if
// the walk was long. The overview waits 5 seconds for them, api/stats 100. After that the
// last ones are shown, with their age.
//
// # Security
//
// Authenticate further out and decide in Authorize. What it refuses gets 403. A browser asks
// for a password only when it gets 401 with WWW-Authenticate; the example shows a middleware
// that answers so. The pages belong on a port that only operators can reach.
//
// Requests that change something must be POST and must not come from another site
// (http.CrossOriginProtection). The form carries a token bound to the user, the action, the
// record and its fence. Answers are not stored by caches, load nothing from elsewhere, run
// no scripts, and cannot be framed.
package idemadmin
