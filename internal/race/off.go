//go:build !race

package race

// Enabled reports whether the race detector is on.
const Enabled = false

// Share is by how much tests divide the number of their random cases.
const Share = 1
