package data

import (
	"fmt"
	"io"
	"io/fs"
)

// cifarFiles are CIFAR-10's binary batches: five to train on, one to test on.
var cifarFiles = []string{
	"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin",
	"test_batch.bin",
}

const cifarPixels = 3 * Size * Size

func loadCIFAR(fsys fs.FS, dir string) (*Set, error) {
	s := &Set{Channels: 3, Height: Size, Width: Size}
	for _, name := range cifarFiles {
		split := &s.Train
		if name == "test_batch.bin" {
			split = &s.Test
		}
		if err := s.readFile(fsys, dir, name, split.appendCIFAR); err != nil {
			return nil, err
		}
	}
	return s, s.identify()
}

// appendCIFAR adds the images of a batch file: records of a label and 3x32x32
// pixels, channel by channel (Krizhevsky, "Learning Multiple Layers of Features
// from Tiny Images", 2009).
func (s *Split) appendCIFAR(r io.Reader) error {
	const record = 1 + cifarPixels
	raw, err := readUpTo(r, maxFile+1)
	if err != nil {
		return err
	}
	if len(raw) > maxFile {
		return fmt.Errorf("it holds more than %d bytes: that is too large", maxFile)
	}
	if len(raw) == 0 || len(raw)%record != 0 {
		return fmt.Errorf("%d bytes are not a whole number of records of %d: it is damaged or cut short", len(raw), record)
	}
	first := len(s.Labels)
	for ; len(raw) > 0; raw = raw[record:] {
		s.Labels = append(s.Labels, raw[0])
		s.Pixels = append(s.Pixels, raw[1:record]...)
	}
	return checkLabels(s.Labels[first:])
}
