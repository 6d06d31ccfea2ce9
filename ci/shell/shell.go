// Package shell is the input that gives images Berth's settings of the shell: the
// prompt that shows where one is. They travel with the module, and nothing is locked.
package shell

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"time"

	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/rootfs"
)

// Input is shell.tar, with files below etc/.
type Input struct{}

var _ input.Input = Input{}

// Name implements input.Input.
func (Input) Name() string { return "shell.tar" }

// Read implements input.Input.
func (Input) Read(string) (input.Locked, error) { return archive() }

// Check implements input.Input: the module's version is the pin.
func (Input) Check(string) error { return nil }

// Pin implements input.Input.
func (Input) Pin(context.Context, string, input.Options) (input.Pinned, error) {
	a, err := archive()
	return input.Pinned{Locked: a}, err
}

// contents are those of an archive.
type contents []byte

func archive() (contents, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir := tar.Header{Typeflag: tar.TypeDir, Name: "etc/", Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := w.WriteHeader(&dir); err != nil {
		return nil, err
	}
	files := rootfs.Etc()
	err := fs.WalkDir(files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		h := tar.Header{Typeflag: tar.TypeDir, Name: "etc/" + name + "/", Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if e.IsDir() {
			return w.WriteHeader(&h)
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Name, h.Mode, h.Size = tar.TypeReg, "etc/"+name, 0o644, int64(len(data))
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = w.Close()
	return b.Bytes(), err
}

// Hash implements input.Locked.
func (c contents) Hash() string {
	sum := sha256.Sum256(c)
	return hex.EncodeToString(sum[:])
}

// Make implements input.Locked.
func (c contents) Make(_ context.Context, o input.Options) (input.Made, error) {
	path, err := o.Keep(c.Hash()+".tar", func(w io.Writer) error {
		_, err := w.Write(c)
		return err
	})
	return input.Made{Path: path}, err
}
