package contenders

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"unsafe"
)

// KeyBytes is the size of a key: 16 random bytes, as of a UUID.
const KeyBytes = 16

// Keys are the keys of a workload, made from a seed: random bytes, so that
// neighbours are nowhere near each other in an engine. They lie in one piece of
// memory without pointers, and the next one of a worker is right behind its last,
// so that reading the key itself costs next to nothing in what is measured.
type Keys struct {
	stored, absent []byte
	order          []uint32 // of Fill
}

// maxAbsent bounds the keys that are never stored.
const maxAbsent = 1 << 20

// NewKeys makes n keys to store, and about as many that never are. The same n gives
// the same keys in the same order.
func NewKeys(n int) *Keys {
	k := &Keys{stored: make([]byte, n*KeyBytes), absent: make([]byte, max(1, min(n, maxAbsent))*KeyBytes), order: make([]uint32, n)}
	random := rand.NewChaCha8([32]byte{'k', 'e', 'y', 's'})
	_, _ = random.Read(k.stored) // never fails
	_, _ = random.Read(k.absent)
	// They are stored in another order than they are asked for in: records asked for
	// one after the other shall not lie side by side in memory.
	for i := range k.order {
		k.order[i] = uint32(i)
	}
	rand.New(random).Shuffle(n, func(i, j int) { k.order[i], k.order[j] = k.order[j], k.order[i] })
	return k
}

// Len is how many keys are stored; 0 of a nil Keys.
func (k *Keys) Len() int {
	if k == nil {
		return 0
	}
	return len(k.stored) / KeyBytes
}

// Fill returns the i-th key to be stored, for i from 0 to Len()-1. The string is
// part of Keys: it needs no copy.
func (k *Keys) Fill(i int) string { return at(k.stored, uint64(k.order[i])) }

// Hit returns the key that a worker asks for in its n-th operation, one that is
// stored. It allocates nothing.
func (k *Keys) Hit(worker int, n uint64) string {
	return at(k.stored, (spread(worker)+n)%uint64(len(k.stored)/KeyBytes))
}

// Miss is Hit for a key that is not stored.
func (k *Keys) Miss(worker int, n uint64) string {
	return at(k.absent, (spread(worker)+n)%uint64(len(k.absent)/KeyBytes))
}

// spread keeps workers far from each other.
func spread(worker int) uint64 { return uint64(worker) * 0x9e3779b97f4a7c15 >> 24 }

func at(keys []byte, i uint64) string {
	return unsafe.String(&keys[i*KeyBytes], KeyBytes)
}

// Fresh returns a key that no other worker and no other n gets, and that is in no
// Keys: 16 bytes without any order. The string is the only thing it allocates.
func Fresh(worker int, n uint64) string {
	var b [KeyBytes]byte
	// Both halves are one-to-one in (worker, n).
	x := uint64(worker)<<40 | n
	binary.LittleEndian.PutUint64(b[:], mix(x))
	binary.LittleEndian.PutUint64(b[8:], mix(^x))
	return string(b[:])
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood 2014): one-to-one, and
// every bit of x reaches every bit of it.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// randomBytes returns n bytes that do not compress, the same ones each time.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{'r', 'e', 's', 'u', 'l', 't'}).Read(b) // never fails
	return b
}

// SortFill makes Fill go in the order of the keys.
func (k *Keys) SortFill() {
	slices.SortFunc(k.order, func(a, b uint32) int { return cmp.Compare(at(k.stored, uint64(a)), at(k.stored, uint64(b))) })
}
