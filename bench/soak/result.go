package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"

	"github.com/idemkv/idem"
)

// resultOf is the result that the claim of key with this fence records. It can be
// worked out again from the record alone, so that every replay is checked whole and
// nothing has to be remembered. Most are small, one in 64 is large.
func resultOf(key string, fence uint64) []byte {
	h := fnv.New64a()
	h.Write([]byte(key))
	rng := rand.New(rand.NewPCG(h.Sum64(), fence))
	size := 32 + rng.IntN(400)
	if rng.IntN(64) == 0 {
		size = 8<<10 + rng.IntN(8<<10)
	}
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, rng.Uint64())
	}
	return b
}

// effectFence stands for the fence where the one who makes the result does not
// learn it: in the same commit.
const effectFence = 0

// badReplay says what is wrong with a completed record, nil if nothing is.
func badReplay(key string, r idem.Record) error {
	fence := r.Fence
	if isEffect(key) {
		fence = effectFence
	}
	if want := resultOf(key, fence); r.Key != key || !bytes.Equal(r.Result, want) {
		return fmt.Errorf("key %q with fence %d replays %d bytes as of key %q in place of its own %d",
			key, r.Fence, len(r.Result), r.Key, len(want))
	}
	return nil
}
