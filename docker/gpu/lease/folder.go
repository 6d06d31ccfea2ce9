package lease

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/usage"
)

// A Book is a folder with the leases of a machine.
type Book struct{ dir string }

const envFolder = "BERTH_LEASES"

// name is that of the folder in the place that everybody on the machine shares.
const name = "berth-gpus"

// places are where that folder may be: the first one that everybody may write to
// and where nobody may remove another's files, so that all people of a machine, root
// too, come to the same. /run/lock is for just this, and empty after a restart of
// the machine, but some distributions leave it to root alone; /tmp is what every
// machine has. (Not /dev/shm: systemd-logind removes people's files there when they
// log out, and with the file goes the meaning of a lock on it.)
var places = []string{"/run/lock", "/tmp"}

// shared is the mode of the folder: everybody may add files, and only the owner of
// a file, that of the folder and root may remove it.
const shared = fs.ModeSticky | 0o777

// patience is how long to wait for another process to finish what takes it
// microseconds: giving what it has just made its mode.
const patience = time.Second

// Open returns the book in $BERTH_LEASES or, without it, the one that all people of
// the machine share. The folder is made if it is missing. One that is a link, or where
// people could remove each other's files, is refused.
func Open() (Book, error) {
	if dir := os.Getenv(envFolder); dir != "" {
		return OpenAt(dir)
	}
	dir, err := commonFolder()
	if err != nil {
		return Book{}, err
	}
	return open(dir, func(m fs.FileMode) bool { return sticky(m) && m&0o777 == 0o777 })
}

// Read returns the Status of the book that Open opens, and makes no folder.
func Read() (Status, error) {
	dir := os.Getenv(envFolder)
	if dir == "" {
		var err error
		if dir, err = commonFolder(); err != nil {
			return Status{}, err
		}
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return Status{}, nil
	}
	return Book{dir}.Status()
}

// commonFolder is the folder that all people of the machine share.
func commonFolder() (string, error) {
	for _, place := range places {
		if info, err := os.Lstat(place); err == nil && info.IsDir() && sticky(info.Mode()) {
			return filepath.Join(place, name), nil
		}
	}
	err := fmt.Errorf("leasing GPUs: none of %q is a folder that everybody may write to and that has the sticky bit", places)
	return "", advice.With(err, "Make a folder for it, once as root, and name it in %s:\n"+
		"\tmkdir -m 1777 /var/lib/berth-gpus && export %[1]s=/var/lib/berth-gpus", envFolder)
}

// OpenAt is Open for a folder that is named. One that is there already keeps its
// mode: who may write to it may share it.
func OpenAt(dir string) (Book, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Book{}, err
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // a link that the person has named, not one that lay in wait
	}
	return open(dir, func(m fs.FileMode) bool { return m&0o022 == 0 || m&fs.ModeSticky != 0 })
}

// sticky reports whether everybody may write to a folder, and nobody may remove
// another's files.
func sticky(m fs.FileMode) bool { return m&fs.ModeSticky != 0 && m&0o002 != 0 }

// open makes the folder unless it is there, in a mode that is fit for it.
func open(dir string, fit func(fs.FileMode) bool) (Book, error) {
	b := Book{dir}
	for late := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		info, err := os.Lstat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err = os.Mkdir(dir, 0o700); err == nil {
				err = share(dir)
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return Book{}, advice.With(fmt.Errorf("making the folder for leases of GPUs: %w", err), "Name another one in %s.", envFolder)
			}
		case err != nil:
			return Book{}, fmt.Errorf("looking for the folder with the leases of GPUs: %w", err)
		case !info.IsDir():
			return Book{}, b.refuse(info, "isn't a folder")
		case fit(info.Mode()):
			return b, nil
		case owner(info) == os.Geteuid() && filepath.Base(dir) == name && info.Mode().Perm() == 0o700:
			// A process that was killed right after it had made the folder left it so.
			if err := share(dir); err != nil {
				return Book{}, fmt.Errorf("making the folder for leases of GPUs: %w", err)
			}
		case time.Now().After(late):
			return Book{}, b.refuse(info, fmt.Sprintf("has the mode %04o, with which people can't share it safely", unixMode(info.Mode())))
		}
	}
}

// share opens a folder that this user has made to everybody. If somebody has put
// something else in its place since, that stays as it is.
func share(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if owner(info) != os.Geteuid() {
		return &fs.PathError{Op: "chmod", Path: dir, Err: fs.ErrPermission}
	}
	return f.Chmod(shared) // whatever the umask
}

// refuse is the error about a folder that isn't fit.
func (b Book) refuse(info fs.FileInfo, why string) error {
	return advice.With(fmt.Errorf("%w: %s, for the leases of GPUs, %s. It belongs to user %d", usage.Err, b.dir, why, owner(info)),
		"Once nobody has a lease in it, its owner or root may set it right,\n\trm -r %s && mkdir -m 1777 %[1]s\nor name another folder in %s.",
		b.dir, envFolder)
}

// unixMode is a mode as chmod takes it.
func unixMode(m fs.FileMode) uint32 {
	u := uint32(m.Perm())
	if m&fs.ModeSticky != 0 {
		u |= syscall.S_ISVTX
	}
	return u
}

// owner returns the uid of a file's owner.
func owner(info fs.FileInfo) int {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(stat.Uid)
}

// path joins a name to the folder.
func (b Book) path(name string) string { return filepath.Join(b.dir, name) }
