//go:build !linux

package doctor

func kernelRelease() string { return "" }

func space(string) (free, total int64) { return 0, 0 }

func writable(string) bool { return true }
