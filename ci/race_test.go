//go:build race

package ci

// raced reports whether the race detector is on: it makes packing and compressing images ten
// times as slow.
const raced = true
