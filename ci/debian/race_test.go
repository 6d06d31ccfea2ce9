//go:build race

package debian

// raced reports whether the race detector is on: it makes unpacking packages ten times as slow.
const raced = true
