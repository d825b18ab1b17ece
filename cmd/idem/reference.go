package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem"
)

// refKind is what an argument that names a record is taken for.
type refKind string

const (
	byKey   refKind = "key"
	byHash  refKind = "hash"
	byToken refKind = "token"
)

var refKinds = []refKind{byKey, byHash, byToken}

// reference is an argument that names a record: a key, a key's hash or a token. A key may
// look like either of the others, so all that it can be is looked for.
type reference struct {
	arg  string
	only refKind // from -as; empty: whatever it can be
}

// keyed is a key that a reference may stand for.
type keyed struct {
	key   string
	as    refKind
	fence uint64 // of a token
}

// keys returns the keys that r may stand for: as it was written, as it was printed (a key
// with odd bytes is printed quoted), and out of a token.
func (r reference) keys() []keyed {
	var all []keyed
	if r.only == "" || r.only == byKey {
		if len(r.arg) <= idem.MaxKey {
			all = append(all, keyed{key: r.arg, as: byKey})
		}
		if strings.HasPrefix(r.arg, `"`) {
			if key, err := strconv.Unquote(r.arg); err == nil && key != "" && len(key) <= idem.MaxKey {
				all = append(all, keyed{key: key, as: byKey})
			}
		}
	}
	if t, ok := r.token(); ok {
		all = append(all, keyed{t.Key, byToken, t.Fence})
	}
	return all
}

func (r reference) token() (t idem.Token, ok bool) {
	if r.only != "" && r.only != byToken {
		return t, false
	}
	return t, t.UnmarshalText([]byte(r.arg)) == nil
}

// hashDigits is the length of Store.KeyHash.
const hashDigits = 12

// hash returns the hash that r may stand for, empty if it cannot.
func (r reference) hash() string {
	if r.only != "" && r.only != byHash || len(r.arg) != hashDigits || strings.Trim(r.arg, "0123456789abcdef") != "" {
		return ""
	}
	return r.arg
}

// kinds says what r may stand for: "key or hash".
func (r reference) kinds() string {
	var kinds []string
	for _, k := range refKinds {
		can := slices.ContainsFunc(r.keys(), func(c keyed) bool { return c.as == k })
		if can || k == byHash && r.hash() != "" {
			kinds = append(kinds, string(k))
		}
	}
	return strings.Join(kinds, " or ")
}

// check refuses what cannot stand for anything.
func (r reference) check() error {
	if r.arg == "" {
		return usage("the key is empty; give a key, a hash or a token")
	}
	if len(r.keys()) > 0 || r.hash() != "" {
		return nil
	}
	switch r.only {
	case byHash:
		return usage("a hash has %d digits of 0-9 and a-f, as in the logs", hashDigits)
	case byToken:
		return usage("that is no token; one reads idem1.FENCE.KEY")
	}
	return usage("a key has %d bytes at most", idem.MaxKey)
}

// asFlag adds the flag that says what an argument is.
func asFlag(c *cobra.Command, r *reference) {
	c.Flags().Var((*refKindFlag)(&r.only), "as", "what the argument is: key, hash or token (default: whatever it can be)")
	must(c.RegisterFlagCompletionFunc("as", cobra.FixedCompletions([]string{"key", "hash", "token"}, cobra.ShellCompDirectiveNoFileComp)))
}

type refKindFlag refKind

func (f *refKindFlag) String() string { return string(*f) }
func (f *refKindFlag) Type() string   { return "KIND" }

func (f *refKindFlag) Set(s string) error {
	for _, k := range refKinds {
		if string(k) == s {
			*f = refKindFlag(k)
			return nil
		}
	}
	return fmt.Errorf("it must be key, hash or token")
}
