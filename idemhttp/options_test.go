package idemhttp_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

func TestNewPanics(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	for want, f := range map[string]func(){
		"the store is nil":           func() { idemhttp.New(nil, scopeOf, idemhttp.Options{}) },
		"use idemhttp.GlobalScope":   func() { idemhttp.New(store, nil, idemhttp.Options{}) },
		"the handler to wrap is nil": func() { idemhttp.New(store, scopeOf, idemhttp.Options{})(nil) },
		"Methods has GET":            func() { idemhttp.New(store, scopeOf, idemhttp.Options{Methods: []string{"POST", "GET"}}) },
		`Methods has "PO ST"`:        func() { idemhttp.New(store, scopeOf, idemhttp.Options{Methods: []string{"PO ST"}}) },
		`Methods has ""`:             func() { idemhttp.New(store, scopeOf, idemhttp.Options{Methods: []string{""}}) },
		`Options.Header is "a b"`:    func() { idemhttp.New(store, scopeOf, idemhttp.Options{Header: "a b"}) },
		`ReplayedHeader is "a:"`:     func() { idemhttp.New(store, scopeOf, idemhttp.Options{ReplayedHeader: "a:"}) },
		"MaxBody is -1":              func() { idemhttp.New(store, scopeOf, idemhttp.Options{MaxBody: -1}) },
		"MaxResponse is -1":          func() { idemhttp.New(store, scopeOf, idemhttp.Options{MaxResponse: -1}) },
		"Wait is -1ns":               func() { idemhttp.New(store, scopeOf, idemhttp.Options{Wait: -1}) },
		"Lease is -1ns":              func() { idemhttp.New(store, scopeOf, idemhttp.Options{Lease: -1}) },
		"Lease is 30ns":              func() { idemhttp.New(store, scopeOf, idemhttp.Options{Lease: 30}) },
		"MaxRun is -1ns":             func() { idemhttp.New(store, scopeOf, idemhttp.Options{MaxRun: -1}) },
		"MaxAttempts is -1":          func() { idemhttp.New(store, scopeOf, idemhttp.Options{MaxAttempts: -1}) },
		"Retention is -1ns":          func() { idemhttp.New(store, scopeOf, idemhttp.Options{Retention: -1}) },
	} {
		func() {
			defer func() {
				p := fmt.Sprint(recover())
				require.Contains(t, p, "idemhttp.New: ")
				require.Contains(t, p, want)
			}()
			f()
		}()
	}
	methods := []string{"PUT"}
	wrap := idemhttp.New(store, scopeOf, idemhttp.Options{Methods: methods})
	methods[0] = "POST" // is not looked at again
	serve(wrap(http.HandlerFunc(echo)), keyed("k"))
	_, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
	require.ErrorIs(t, err, idem.ErrNotFound)
}
