//go:build race

package race

// Enabled reports whether the race detector is on.
const Enabled = true

// Share is by how much tests divide the number of their random cases.
const Share = 3
