// Soak drives a store with a mix of everything for as long as it is told, and
// samples what must not grow: heap, goroutines, open files, bytes on disk, records.
// It draws one chart per engine and ends with 1 if something grew after the warm-up
// or an answer was wrong:
//
//	make soak DURATION=30m ENGINE=bolt
//
// The mix: claims of new keys; duplicates of hot, recent and long gone ones;
// completions, failures, releases and holds; leases that lapse and are taken over;
// extensions, checkpoints, Wait, Do, ClaimMany and CompleteMany; effects in the same
// commit; all under the background sweep, with a retention so short that as many
// records expire as are made.
package main
