// Package cudatest makes, for tests, what takes the place of an NVIDIA driver on a machine
// without a GPU, and a trainer that looks for one.
package cudatest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// root is that of the checkout.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

func at(path string) string { return filepath.Join(root(), "trainer", "cuda", path) }

// Notes returns a folder with a libcuda.so.1 that notes what is launched: see
// trainer/cuda/driver/testdata/libcuda.c. Environment variables of a process with the folder
// in LD_LIBRARY_PATH say what is wrong with it.
func Notes(t testing.TB) (folder string) { return library(t) }

// Runs returns a folder with one that runs what is launched: the kernels, compiled for the
// host.
func Runs(t testing.TB) (folder string) {
	sources, err := filepath.Glob(at("kernels/*.cu"))
	require.NoError(t, err)
	require.NotEmpty(t, sources)
	var all strings.Builder
	for _, s := range sources {
		fmt.Fprintf(&all, "#include %q\n", s)
	}
	temp := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(temp, "sources.h"), []byte(all.String()), 0o600))
	object := filepath.Join(temp, "kernels.o")
	testenv.NeedsCommand(t, testenv.Cgo, "g++")
	compile(t, "g++", "-std=c++20", "-O3", "-mavx2", "-mfma", "-ffp-contract=off", "-fno-exceptions", "-fno-rtti", "-fPIC", "-Wall", "-Werror",
		"-Wno-unknown-pragmas", "-I"+at("driver/testdata"), "-I"+temp, "-c", "-o", object, at("driver/testdata/kernels.cc"))
	return library(t, object, "-lm")
}

func library(t testing.TB, more ...string) (folder string) {
	testenv.NeedsCommand(t, testenv.Cgo, "gcc")
	folder = t.TempDir()
	compile(t, "gcc", append([]string{"-shared", "-fPIC", "-Wall", "-Werror", "-I" + at("driver/abi"), "-o", filepath.Join(folder, "libcuda.so.1"),
		at("driver/testdata/libcuda.c")}, more...)...)
	return folder
}

func compile(t testing.TB, compiler string, args ...string) {
	out, err := exec.Command(compiler, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Go runs the go command in a folder below the checkout, with what the tag cuda needs.
func Go(t testing.TB, folder string, args ...string) {
	testenv.NeedsCommand(t, testenv.Cgo, "gcc")
	c := exec.Command("go", args...)
	c.Dir = filepath.Join(root(), folder)
	c.Env = append(os.Environ(), "CGO_ENABLED=1", "CGO_CFLAGS=-O2 -I"+at("driver/abi"), "CGO_LDFLAGS=-L"+at("driver/abi"))
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Trainer builds the trainer with the tag cuda, and returns its path.
func Trainer(t testing.TB) (program string) {
	program = filepath.Join(t.TempDir(), "trainer")
	Go(t, ".", "build", "-tags=cuda", "-o", program, "./trainer")
	return program
}
