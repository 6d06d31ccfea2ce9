//go:build !unix

package ci

// identify returns no identity that could be known again: without the time at which a
// file's inode changed, one that is as large as before and has its old time back looks unchanged.
func identify(string) (identity, error) { return identity{}, nil }
