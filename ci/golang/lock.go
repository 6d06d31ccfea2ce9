package golang

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
)

// A Toolchain is a release of Go for linux/amd64, as the module that the go
// command itself downloads toolchains from (https://go.dev/doc/toolchain).
type Toolchain struct {
	Version string // such as "1.26.8"
	Sum     string // of the module, as in go.sum: "h1:…"
}

const toolchainModule = "golang.org/toolchain"

func (t Toolchain) moduleVersion() string { return "v0.0.1-go" + t.Version + ".linux-amd64" }

func (t Toolchain) module() string { return toolchainModule + "@" + t.moduleVersion() }

// String is the line of go.sum for the toolchain, if go.sum had such lines.
func (t Toolchain) String() string {
	return toolchainModule + " " + t.moduleVersion() + " " + t.Sum
}

const lockHead = "# The Go toolchain that docker/Dockerfile compiles with, and its checksum as in\n" +
	"# go.sum. Written by `go tool mage pin`.\n"

// WriteFile writes the lock of a toolchain, whole or not at all.
func (t Toolchain) WriteFile(name string) error { return cache.WriteFile(name, t.Marshal(), 0o644) }

// Marshal returns the content of the lock's file.
func (t Toolchain) Marshal() []byte { return []byte(lockHead + t.String() + "\n") }

// ReadLock reads the lock of a toolchain.
func ReadLock(name string) (Toolchain, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Toolchain{}, advice.With(fmt.Errorf("no toolchain is locked: %w", err), "Type\n\t%s pin", advice.Berth)
	} else if err != nil {
		return Toolchain{}, err
	}
	t, err := parseLock(string(data))
	if err != nil {
		return Toolchain{}, advice.With(fmt.Errorf("%s: %w", name, err), "Take the file from version control again, or type\n\t%s pin",
			advice.Berth)
	}
	return t, nil
}

func parseLock(text string) (t Toolchain, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if t.Version != "" || len(words) != 3 {
			return Toolchain{}, fmt.Errorf("%q: one line with module, version and checksum is what a lock of a toolchain has", line)
		}
		t = Toolchain{Version: strings.TrimSuffix(strings.TrimPrefix(words[1], "v0.0.1-go"), ".linux-amd64"), Sum: words[2]}
		if t.String() != line || !semver.IsValid("v"+t.Version) || !strings.HasPrefix(t.Sum, "h1:") {
			return Toolchain{}, fmt.Errorf("%q is no toolchain for linux/amd64 with its checksum", line)
		}
	}
	if t.Version == "" {
		return Toolchain{}, errors.New("there is no toolchain in it")
	}
	return t, nil
}

// Wanted returns the Go version that a go.mod asks for, such as "1.26.0".
func Wanted(gomod string) (string, error) {
	data, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	f, err := modfile.ParseLax(gomod, data, nil)
	if err != nil {
		return "", err
	}
	if f.Go == nil {
		return "", fmt.Errorf("%s doesn't say which version of Go it is for. Type\n\tgo mod edit -go=1.26.0", gomod)
	}
	return f.Go.Version, nil
}

// Suits reports whether the toolchain is of the release line that a go.mod asks for
// and not older.
func (t Toolchain) Suits(wanted string) bool {
	have, want := "v"+t.Version, "v"+wanted
	return semver.MajorMinor(have) == semver.MajorMinor(want) && semver.Compare(have, want) >= 0
}
