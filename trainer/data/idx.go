package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// idxFiles are the files of MNIST and of the sets in its format: images and
// labels to train on, images and labels to test on.
var idxFiles = [4]string{
	"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
	"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
}

// The first four bytes of IDX files: two zeros, the type (8: unsigned byte) and
// the number of dimensions.
const (
	magicImages = 0x00000803
	magicLabels = 0x00000801
)

// maxFile bounds what is read of one file: 1 GiB is 20 times the largest
// published one, and keeps a compressed bomb from filling the memory.
const maxFile = 1 << 30

func loadIDX(fsys fs.FS, dir string) (*Set, error) {
	s := &Set{Channels: 1}
	for i, split := range []*Split{&s.Train, &s.Test} {
		err := s.readFile(fsys, dir, idxFiles[2*i], func(raw []byte) error {
			pixels, h, w, err := parseImages(raw)
			if err == nil && i == 1 && (h != s.Height || w != s.Width) {
				err = fmt.Errorf("its images are %dx%d, those to train on %dx%d", w, h, s.Width, s.Height)
			}
			split.Pixels, s.Height, s.Width = pixels, h, w
			return err
		})
		if err != nil {
			return nil, err
		}
		err = s.readFile(fsys, dir, idxFiles[2*i+1], func(raw []byte) error {
			labels, err := parseLabels(raw)
			if images := len(split.Pixels) / (s.Height * s.Width); err == nil && len(labels) != images {
				err = fmt.Errorf("it has %d labels for %d images", len(labels), images)
			}
			split.Labels = labels
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return s, s.identify()
}

// parseImages reads an IDX file of images: magic, count, height and width as
// big-endian 32-bit numbers, then a byte for every pixel.
func parseImages(raw []byte) (pixels []byte, height, width int, err error) {
	head, err := parseHeader(raw, magicImages, "images", 4)
	if err != nil {
		return nil, 0, 0, err
	}
	n, h, w := head[1], head[2], head[3]
	if h < 1 || h > Size || w < 1 || w > Size {
		return nil, 0, 0, fmt.Errorf("images of %dx%d pixels: 1x1 to %dx%d are possible", w, h, Size, Size)
	}
	pixels = raw[16:]
	if want := uint64(n) * uint64(h) * uint64(w); uint64(len(pixels)) != want {
		return nil, 0, 0, fmt.Errorf("%d bytes of pixels, but its header says %d images of %dx%d, which are %d: it is damaged or cut short", len(pixels), n, w, h, want)
	}
	return pixels, int(h), int(w), nil
}

// parseLabels reads an IDX file of labels: magic and count, then a byte each.
func parseLabels(raw []byte) ([]byte, error) {
	head, err := parseHeader(raw, magicLabels, "labels", 2)
	if err != nil {
		return nil, err
	}
	labels := raw[8:]
	if uint64(len(labels)) != uint64(head[1]) {
		return nil, fmt.Errorf("%d labels, but its header says %d: it is damaged or cut short", len(labels), head[1])
	}
	return labels, checkLabels(labels)
}

func parseHeader(raw []byte, magic uint32, what string, words int) ([]uint32, error) {
	if len(raw) < 4*words {
		return nil, fmt.Errorf("it ends after %d bytes, within its header: it is cut short", len(raw))
	}
	head := make([]uint32, words)
	for i := range head {
		head[i] = binary.BigEndian.Uint32(raw[4*i:])
	}
	switch {
	case head[0] != magic:
		return nil, fmt.Errorf("it begins with %08x, but IDX files of %s begin with %08x", head[0], what, magic)
	case head[1] == 0:
		return nil, fmt.Errorf("it has no %s", what)
	}
	return head, nil
}

func checkLabels(labels []uint8) error {
	for i, l := range labels {
		if l >= Classes {
			return fmt.Errorf("label %d of image %d is out of range: 0 to %d are possible", l, i, Classes-1)
		}
	}
	return nil
}

// read returns what is in a file, or in the same with .gz, and which it was.
func read(fsys fs.FS, dir, name string) ([]byte, string, error) {
	f, err := fsys.Open(path.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if zipped, zerr := fsys.Open(path.Join(dir, name+".gz")); !errors.Is(zerr, fs.ErrNotExist) {
			f, err, name = zipped, zerr, name+".gz"
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, name, fmt.Errorf("%s is missing", name)
	}
	if err != nil {
		return nil, name, err
	}
	defer f.Close()
	var in io.Reader = f
	if path.Ext(name) == ".gz" {
		if in, err = gzip.NewReader(f); err != nil {
			return nil, name, fmt.Errorf("%s: %w", name, err)
		}
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(io.LimitReader(in, maxFile+1)); err != nil {
		return nil, name, fmt.Errorf("%s is damaged or cut short: %w", name, err)
	}
	if raw.Len() > maxFile {
		return nil, name, fmt.Errorf("%s holds more than %d bytes: that is too large", name, maxFile)
	}
	return raw.Bytes(), name, nil
}
