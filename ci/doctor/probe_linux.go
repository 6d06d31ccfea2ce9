package doctor

import "golang.org/x/sys/unix"

// kernelRelease is what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// space is how many bytes of a file system are free for this user, and how many it has;
// zero if it doesn't tell.
func space(folder string) (free, total int64) {
	var s unix.Statfs_t
	if unix.Statfs(folder, &s) != nil {
		return 0, 0
	}
	return int64(s.Bavail) * s.Bsize, int64(s.Blocks) * s.Bsize
}

// writable reports whether this user may write to a folder.
func writable(folder string) bool { return unix.Access(folder, unix.W_OK) == nil }
