// Package kernels has the trainer's work on an NVIDIA GPU: kernels in CUDA C++, one
// file each, the PTX that clang makes of them, and how each is launched.
//
// The PTX is what ships. It is committed, for sm_80 and with nothing that later
// architectures lack, so that the driver compiles it for every GPU from there on;
// neither building nor running Berth needs clang or NVIDIA's toolkit. After a change
//
//	go test ./trainer/cuda/kernels -run=PTX -update
//
// makes it anew, with the clang that [Clang] names. Where that is installed, a test
// sees whether sources and PTX belong together.
//
// Arrays of pixels are [row][channel], float32, a row being a pixel of an image:
// what tensor cores and coalesced reads want. Weights of convolutions are
// [tap][in][out], those of the linear layer [class][pixel][channel].
//
// All sums have a fixed order, and there are no atomic operations: the same GPU
// gives the same bits in every run. With [FP32] there is nothing but correctly rounded
// operations, so every GPU does. Random numbers are those of the CPU.
//
// The kernels have not yet run on a GPU: the tests run their PTX in an interpreter.
package kernels

import (
	"embed"
	"path"
	"strings"
)

// Clang is the version that makes the PTX, of Debian's package clang-19. Another one
// may rightly make other instructions.
const Clang = "19.1.7"

//go:embed *.ptx
var files embed.FS

// PTX returns the PTX of the files, by name.
func PTX() map[string]string {
	all := map[string]string{}
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // they are in the program
	}
	for _, e := range entries {
		text, err := files.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		all[strings.TrimSuffix(e.Name(), path.Ext(e.Name()))] = string(text)
	}
	return all
}

// Pointer is an address in the memory of a device.
type Pointer uint64

// A Launcher runs kernels by name, one after the other as if each waited for the one
// before. Arguments are [Pointer], int32, uint64 or float32.
type Launcher interface {
	Launch(kernel string, grid, block [3]int, args ...any) error
}

// Precision says how convolutions multiply.
type Precision string

// The precisions. TF32 rounds factors to 10 bits of fraction, for the tensor cores; sums
// are float32 in both.
const (
	FP32 Precision = "fp32"
	TF32 Precision = "tf32"
)

// Entries lists the kernels of a PTX file.
func Entries(ptx string) (names []string) {
	for line := range strings.Lines(ptx) {
		if rest, ok := strings.CutPrefix(line, ".visible .entry "); ok {
			name, _, _ := strings.Cut(rest, "(")
			names = append(names, name)
		}
	}
	return names
}
