// Package idemtest is the conformance suite for idem's engines. An engine that passes
// Run keeps every rule of the store, whatever it is built on:
//
//	func TestConformance(t *testing.T) {
//		idemtest.Run(t, idemtest.Harness{
//			Open: func(t testing.TB, dir string) engine.Backend {
//				b, err := myengine.Open(filepath.Join(dir, "my.db"))
//				if err != nil {
//					t.Fatal(err)
//				}
//				return b
//			},
//		})
//	}
//
// Each case is a subtest named after the behaviour it checks, and can be run alone:
// go test -run 'TestConformance/fences'. Cases use a fake Clock; none sleeps. If an engine
// cannot be made to do something, such as stall or fail a commit, leave that hook of Harness
// nil. The cases that need it are then skipped and say so. A skipped case is a behaviour that
// was not checked.
//
// Run also checks random concurrent histories against a model (Histories) and random
// sequences of operations against another one (Model).
//
// RunHostile is called in the same way and takes longer. It checks that the engine withstands
// crowds, large results, keys of any bytes, and being closed or cancelled at any moment.
package idemtest
