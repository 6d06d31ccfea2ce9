//go:build !race

package ci

const raced = false
