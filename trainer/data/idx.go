package data

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
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

// maxFile bounds what is taken of one file: 1 GiB is 20 times the largest
// published one. Until then it is the header that tells how much to read, so that
// a compressed bomb doesn't fill the memory.
const maxFile = 1 << 30

func loadIDX(fsys fs.FS, dir string) (*Set, error) {
	s := &Set{Channels: 1}
	for i, split := range []*Split{&s.Train, &s.Test} {
		err := s.readFile(fsys, dir, idxFiles[2*i], func(r io.Reader) error {
			pixels, h, w, err := parseImages(r)
			if err == nil && i == 1 && (h != s.Height || w != s.Width) {
				err = fmt.Errorf("its images are %dx%d, those to train on %dx%d", w, h, s.Width, s.Height)
			}
			split.Pixels, s.Height, s.Width = pixels, h, w
			return err
		})
		if err != nil {
			return nil, err
		}
		err = s.readFile(fsys, dir, idxFiles[2*i+1], func(r io.Reader) error {
			labels, err := parseLabels(r)
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
func parseImages(r io.Reader) (pixels []byte, height, width int, err error) {
	head, err := parseHeader(r, magicImages, "images", 4)
	if err != nil {
		return nil, 0, 0, err
	}
	n, h, w := head[1], head[2], head[3]
	if h < 1 || h > Size || w < 1 || w > Size {
		return nil, 0, 0, fmt.Errorf("images of %dx%d pixels: 1x1 to %dx%d are possible", w, h, Size, Size)
	}
	what := fmt.Sprintf("%d images of %dx%d", n, w, h)
	pixels, err = readValues(r, uint64(n)*uint64(h)*uint64(w), "pixels", what)
	return pixels, int(h), int(w), err
}

// parseLabels reads an IDX file of labels: magic and count, then a byte each.
func parseLabels(r io.Reader) ([]byte, error) {
	head, err := parseHeader(r, magicLabels, "labels", 2)
	if err != nil {
		return nil, err
	}
	labels, err := readValues(r, uint64(head[1]), "labels", fmt.Sprintf("%d labels", head[1]))
	if err != nil {
		return nil, err
	}
	return labels, checkLabels(labels)
}

// readValues reads what a header promised, a byte each: so many values and no more.
func readValues(r io.Reader, want uint64, unit, promised string) ([]byte, error) {
	if want > maxFile {
		return nil, fmt.Errorf("its header says %s, which are %d bytes: more than %d are too large", promised, want, maxFile)
	}
	raw, err := readUpTo(r, int(want))
	if err != nil {
		return nil, err
	}
	if uint64(len(raw)) < want {
		return nil, fmt.Errorf("%d bytes of %s, but its header says %s, which are %d: it is damaged or cut short", len(raw), unit, promised, want)
	}
	more, err := readUpTo(r, 1) // It is at the end that gzip compares the checksum.
	if err == nil && len(more) > 0 {
		err = fmt.Errorf("more than %d bytes of %s, but its header says %s: it is damaged", want, unit, promised)
	}
	return raw, err
}

func parseHeader(r io.Reader, magic uint32, what string, words int) ([]uint32, error) {
	raw, err := readUpTo(r, 4*words)
	if err != nil {
		return nil, err
	}
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
