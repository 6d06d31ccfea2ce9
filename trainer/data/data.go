// Package data reads image data sets from files and hands them out as batches.
//
// It reads Fashion-MNIST, MNIST and whatever else has their format (IDX, with
// or without gzip), and CIFAR-10's binary batches. It checks what it reads,
// names known data by its hash, and never downloads. Batches are padded to
// 32x32, normalised, and for training shuffled and flipped, by the seed and the
// epoch alone. It knows nothing of networks.
package data

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// Size is the height and width of the images in a batch.
const Size = 32

// Classes is the number of classes of every set.
const Classes = 10

// ImageFolder is where Debian's package dataset-fashion-mnist puts the data, and
// with it the image that Berth builds.
const ImageFolder = "/usr/share/datasets/fashion-mnist"

// ErrNotFound is in the chain of the error that says that a folder holds none
// of the known formats.
var ErrNotFound = errors.New("no data set found")

// Set is a data set: plain values that nothing changes.
type Set struct {
	Name        string // of a known set, else "custom"
	Folder      string // where it was found
	SHA256      string // over the hashes of the files, in their order
	Files       []File
	Channels    int // 1 (gray) or 3 (colour)
	Height      int // up to Size
	Width       int // up to Size
	Train, Test Split
}

// File is one file of a set.
type File struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // of what is in it, uncompressed
}

// Split is the training or the test part of a set.
type Split struct {
	Pixels []uint8 // image, channel, line, column
	Labels []uint8 // below Classes
}

// Len is the number of images.
func (s Split) Len() int { return len(s.Labels) }

// Known says whether the files are those of a published set, to the byte.
func (s *Set) Known() bool { return s.Name != custom }

const custom = "custom"

// known are the SHA-256 of the uncompressed files of published sets, in the
// order of idxFiles. (No reference for CIFAR-10's batches was at hand.)
var known = []struct {
	name   string
	hashes [4]string
}{
	{"fashion-mnist", [4]string{
		"c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
		"bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
		"5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
		"0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"}},
	{"fashion-mnist-1000", [4]string{ // testdata
		"e5d4154168501d148db59df51958cceed6097881e774fdd4cde0cad8ce25f7a1",
		"9b14c55ce4ca02d64196fb60329528a80fcfaf3b006143303dc1dbecc334523e",
		"a83986794402227a1e9f8491954178a24b2e314b7081f0776c7dc9a675541994",
		"917f3dc1edaef97b3feb11cd8efd38ab95d9038ccccd2efaca468e935041743e"}},
	{"mnist", [4]string{
		"ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
		"65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
		"0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
		"ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"}},
}

// Defaults are the folders in which Find looks when the user names none.
func Defaults() []string { return []string{"data", ImageFolder} }

// Find loads the data set in a folder, or in the first of [Defaults] that has
// one if dir is empty. See [Load].
func Find(dir string, fashion bool) (*Set, error) {
	dirs := []string{dir}
	if dir == "" {
		dirs = Defaults()
	}
	for _, d := range dirs {
		set, err := Load(os.DirFS(d), fashion)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("data in %s: %w", d, err)
		}
		set.Folder = d
		return set, nil
	}
	want := "train-images-idx3-ubyte.gz (Fashion-MNIST)"
	if !fashion {
		want += " or data_batch_1.bin (CIFAR-10)"
	}
	return nil, fmt.Errorf("%w: there is no %s in %s. Name the data's folder with --data-dir; "+
		"on Debian, `apt install dataset-fashion-mnist` puts Fashion-MNIST in %s",
		ErrNotFound, want, strings.Join(dirs, " or "), ImageFolder)
}

// Load reads the data set in a folder or in one of the folders that
// torchvision would make in it; CIFAR-10 if there are several, or with fashion
// only Fashion-MNIST. The error wraps [ErrNotFound] if there is none. Files that
// are missing, cut short, too long or wrong in any other way give errors, and so
// do files of a published set among others that are not of it, and folders that
// can't be looked into.
func Load(fsys fs.FS, fashion bool) (*Set, error) {
	if !fashion {
		for _, dir := range []string{"cifar-10-batches-bin", "."} {
			if there, err := exists(fsys, dir, cifarFiles...); err != nil {
				return nil, err
			} else if there {
				return loadCIFAR(fsys, dir)
			}
		}
	}
	for _, dir := range []string{".", "FashionMNIST/raw", "MNIST/raw"} {
		if there, err := exists(fsys, dir, idxFiles[:]...); err != nil {
			return nil, err
		} else if !there {
			continue
		}
		set, err := loadIDX(fsys, dir)
		if err == nil && fashion && !strings.HasPrefix(set.Name, "fashion-mnist") {
			return nil, fmt.Errorf("--fashion asks for Fashion-MNIST, but this is %s (train images have SHA-256 %s). Leave out --fashion to train on it",
				map[bool]string{true: set.Name, false: "unknown data"}[set.Known()], set.Files[0].SHA256)
		}
		return set, err
	}
	return nil, ErrNotFound
}

// exists reports whether one of the files is there, perhaps compressed. Where that
// can't be known, to go on would be to train on other data without a word.
func exists(fsys fs.FS, dir string, names ...string) (bool, error) {
	for _, name := range names {
		for _, ext := range []string{"", ".gz"} {
			info, err := fs.Stat(fsys, path.Join(dir, name+ext))
			if err == nil && info.Mode().IsRegular() {
				return true, nil
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				return false, fmt.Errorf("it can't be looked into: %w. Make that readable, or name another folder with --data-dir", err)
			}
		}
	}
	return false, nil
}

// identify gives the set its hash and, if its files are those of a published
// set, that one's name.
func (s *Set) identify() error {
	all := sha256.New()
	for _, f := range s.Files {
		fmt.Fprintln(all, f.SHA256)
	}
	s.SHA256 = hex.EncodeToString(all.Sum(nil))
	s.Name = custom
	for _, k := range known {
		var same, other []string
		for i, f := range s.Files {
			if i < len(k.hashes) && f.SHA256 == k.hashes[i] {
				same = append(same, f.Name)
			} else {
				other = append(other, f.Name)
			}
		}
		switch {
		case len(other) == 0:
			s.Name = k.name
		case len(same) > 0:
			return fmt.Errorf("some files are those of %s (%s), the others are not (%s): they don't belong together, or some are damaged. Put the originals back, or remove them all",
				k.name, strings.Join(same, ", "), strings.Join(other, ", "))
		}
	}
	return nil
}

// readFile reads a file, uncompressed if its name ends in .gz, and adds it to the
// set's files. parse must read all that there is: it decides how much it takes.
func (s *Set) readFile(fsys fs.FS, dir, name string, parse func(io.Reader) error) error {
	f, name, err := open(fsys, dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	var in io.Reader = f
	if path.Ext(name) == ".gz" {
		if in, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	sum := sha256.New()
	if err := parse(io.TeeReader(in, sum)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.Files = append(s.Files, File{name, hex.EncodeToString(sum.Sum(nil))})
	return nil
}

// open opens a file, or the same with .gz, and returns which it was.
func open(fsys fs.FS, dir, name string) (fs.File, string, error) {
	f, err := fsys.Open(path.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if zipped, zerr := fsys.Open(path.Join(dir, name+".gz")); !errors.Is(zerr, fs.ErrNotExist) {
			f, err, name = zipped, zerr, name+".gz"
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s is missing", name)
	}
	return f, name, err
}

// readUpTo reads n bytes, or as many as there are. It takes memory as they come,
// n and a third at most: a header may promise more than there is.
func readUpTo(r io.Reader, n int) ([]byte, error) {
	room := n
	for room > 1<<20 {
		room = (room + 3) / 4
	}
	raw := make([]byte, 0, room)
	for len(raw) < n {
		if len(raw) == cap(raw) {
			raw = append(make([]byte, 0, min(n, 4*cap(raw))), raw...)
		}
		got, err := r.Read(raw[len(raw):cap(raw)])
		raw = raw[:len(raw)+got]
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is damaged or cut short: %w", err)
		}
	}
	return raw, nil
}
