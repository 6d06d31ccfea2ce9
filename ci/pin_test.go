package ci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/testenv"
)

const someDigest = "sha256:e43a716437cfcf3fbc0094827c4266a10aa81f21714fea999c61311c9cab61d7"

func TestPinsTellOfTheBaseDigest(t *testing.T) {
	require.NoError(t, CheckPins(project))
	lock, err := project.Inputs[0].Read(project.Root)
	require.NoError(t, err)
	want, err := PinnedBaseDigest(project)
	require.NoError(t, err)
	p := checkout(t, 0o022)
	for name, c := range map[string]struct {
		text   string
		differ bool
		says   string
	}{
		"as written":       {want + "\nlock " + lock.Hash() + "\n", false, ""},
		"without its lock": {want + "\n", false, ""},
		"of another lock": {want + "\nlock " + strings.Repeat("0", 64) + "\n", true,
			"docker/base.digest is the digest of a base stage with another rootfs.tar than the locked one"},
		"empty":               {"", false, `"" is no digest`},
		"cut short":           {want[:40] + "\n", false, "is no digest"},
		"a merge's remainder": {"<<<<<<< HEAD\n" + want + "\n", false, "is no digest"},
		"two digests":         {want + "\n" + want + "\n", false, "isn't a line with the hash of a lock"},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, p, p.BaseDigest, c.text)
			err := CheckPins(p)
			if c.says == "" {
				require.NoError(t, err)
				have, err := PinnedBaseDigest(p)
				require.NoError(t, err)
				assert.Equal(t, want, have)
				return
			}
			require.ErrorContains(t, err, c.says)
			assert.Contains(t, Explain(err, "./berth"), "\n\t./berth pin")
			assert.Equal(t, c.differ, ExitCode(err) == ExitPinsDiffer)
		})
	}
	require.NoError(t, os.Remove(p.Path(p.BaseDigest)))
	assert.ErrorContains(t, CheckPins(p), "the digest of the base stage isn't recorded")
	p.BaseStage = ""
	assert.NoError(t, CheckPins(p), "a project need not pin its base stage")
}

func FuzzBaseRecord(f *testing.F) {
	f.Add(someDigest + "\n")
	f.Add(string(baseRecord{someDigest, "0123"}.marshal()))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseBaseRecord(text)
		if err != nil || r.lock == "" {
			return
		}
		again, err := parseBaseRecord(string(r.marshal()))
		require.NoError(t, err)
		assert.Equal(t, r, again)
	})
}

func TestWriteFilesIsAllOrNothing(t *testing.T) {
	dockertest.Cache(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("a"), []byte("old"), 0o644))
	require.NoError(t, os.Mkdir(at("c"), 0o755)) // where a file should go
	files := map[string][]byte{at("a"): []byte("new"), at("b"): []byte("new"), at("c"): []byte("new")}
	err := writeFiles(files)
	require.ErrorContains(t, err, at("c"))
	text, err := os.ReadFile(at("a"))
	require.NoError(t, err)
	assert.Equal(t, "old", string(text))
	assert.NoFileExists(t, at("b"))

	require.NoError(t, os.Remove(at("c")))
	require.NoError(t, writeFiles(files))
	for name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Equal(t, "new", string(text))
	}
}

// The first input can be resolved, the second can't: nothing is written.
func TestPinIsAllOrNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads the index of a real mirror")
	}
	if len(debian.HostMirrors()["debian"]) == 0 {
		testenv.Skip(t, testenv.Mirror, "neither BERTH_DEBIAN_MIRROR nor apt names one")
	}
	dockertest.Connect(t)
	p := checkout(t, 0o022)
	writeFile(t, p, "other.toml", readFile(t, p, "docker/packages.toml"))
	appendTo(t, p, "docker/packages.toml", "\n[[package]]\nname = \"no-such-package\"\nwhy = \"to fail\"\n")
	p.Inputs = []input.Input{named{debian.Input{Manifest: "other.toml", Lock: "other.lock"}, "other.tar"}, debian.Input{}}
	_, err := Pin(t.Context(), p, PinOptions{})
	require.ErrorContains(t, err, "Unable to locate package no-such-package")
	assert.Regexp(t, `docker/packages\.toml:\d+ wants no-such-package`, err.Error())
	assert.NoFileExists(t, p.Path("other.lock"))
	for _, name := range []string{lockFile, goLockFile, p.BaseDigest} {
		assert.Equal(t, readFile(t, project, name), readFile(t, p, name))
	}
}

// named is an input under another name.
type named struct {
	input.Input
	name string
}

func (n named) Name() string { return n.name }
