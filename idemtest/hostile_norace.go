//go:build !race

package idemtest

const crowdSize = 10_000

const histories = 200
