// Package stripe spreads goroutines over copies of something they would otherwise
// contend for, such as counters or idle objects.
package stripe

import "unsafe"

// Index returns a number that is likely the same each time a goroutine asks, and
// different for different goroutines. It is derived from the address of the goroutine's
// stack. Choose by its low four bits.
func Index() uintptr {
	var here byte
	// Stacks are kilobytes apart. Multiplying by Knuth's constant moves the bits that
	// tell their addresses apart into those that are kept.
	return uintptr(uint32(uintptr(unsafe.Pointer(&here))>>10)*0x9e3779b9) >> 28
}
