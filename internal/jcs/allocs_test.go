package jcs

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A number costs no allocation of its own.
func TestNumbersDoNotAllocate(t *testing.T) {
	in := []byte("[" + strings.Repeat("12.50,-0.0001,1234567890123456789,1.5e300,", 1000) + "0]")
	allocs := testing.AllocsPerRun(10, func() {
		if _, err := Canonical(in); err != nil {
			t.Fatal(err)
		}
	})
	assert.Less(t, allocs, 10.0)
}
