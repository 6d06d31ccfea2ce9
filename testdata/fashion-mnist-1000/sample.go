// Package sample holds 1,000 images of Fashion-MNIST, so that tests and the
// trainer's self-test run where there are no files: the first 800 of the
// training set and the first 200 of the test set, in the set's own format and
// file names. The folder thus also serves as a data folder. See LICENSE for
// whose work it is.
package sample

import "embed"

// Files are the four files of the sample.
//
//go:embed *.gz
var Files embed.FS
