// Package stripe spreads goroutines over things that several of them would otherwise
// take from each other: counters, idle objects.
package stripe

import "unsafe"

// Index returns a number that is likely the same whenever one goroutine asks, and
// another one for another goroutine. It is made of where the goroutine's stack is, and
// its low four bits are good to choose by.
func Index() uintptr {
	var here byte
	// Stacks are kilobytes apart; multiplying (Knuth's constant) brings what tells their
	// addresses apart into the bits that are kept.
	return uintptr(uint32(uintptr(unsafe.Pointer(&here))>>10)*0x9e3779b9) >> 28
}
