// Package idemtest is the conformance suite of idem's engines. An engine that
// passes Run keeps every rule of the store, whatever it is made of:
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
// Each case is a subtest named after the behaviour it shows, so that one can be
// run alone: go test -run 'TestConformance/fences'. Time is that of a fake Clock; no
// case sleeps. What an engine cannot be made to do (to stall a commit, to fail
// one) is a nil hook in Harness, and the cases that need it are skipped and say
// so: a skipped case is something not shown.
//
// Beside the cases, Run checks random concurrent histories against a model
// (Histories) and random sequences of operations against another (Model).
//
// RunHostile, called in the same way, takes longer and shows that the engine stands
// crowds, large results, keys of any bytes, and being closed or cancelled at any
// moment.
package idemtest
