package ci

import (
	"archive/tar"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/dockertest"
	"github.com/berthdev/berth/internal/progress"
	"github.com/berthdev/berth/internal/testenv"
)

// damages are the ways in which a file of the cache can be damaged.
var damages = map[string]func([]byte) []byte{
	"flipped": func(b []byte) []byte {
		if len(b) > 0 {
			b[len(b)/2] ^= 1
		}
		return b
	},
	"cut":         func(b []byte) []byte { return b[:len(b)/2] },
	"appended to": func(b []byte) []byte { return append(b, 'x') },
}

// files lists the files of a cache, by the folder at its top.
func filesOf(t *testing.T, dir cache.Dir) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	require.NoError(t, filepath.WalkDir(string(dir), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(string(dir), path)
		top, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
		all[top] = append(all[top], path)
		return err
	}))
	return all
}

// damageFile damages a file, without a trace in its time.
func damageFile(t *testing.T, name string, how func([]byte) []byte) {
	t.Helper()
	info, err := os.Stat(name)
	require.NoError(t, err)
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, how(content), 0o644))
	require.NoError(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
}

// TestDamagedCache damages each file of the cache in each way. No build gives
// another image, at most one fails, and verify doesn't look at them.
func TestDamagedCache(t *testing.T) {
	if testing.Short() {
		t.Skip("builds many times")
	}
	docker := dockertest.Connect(t)
	dir := ownCache(t)
	p := checkout(t, 0o022)
	appendTo(t, p, p.Dockerfile, "# No other test has these inputs: its image would do.\n")
	tag := newTag(t, docker)
	want := build(t, p, tag)
	_, stderr, code := berth(t, p.Root, nil, "run", "-cmd=true", "-t="+tag) // fills what launches keep
	require.Zero(t, code, stderr)

	// again builds from nothing, as far as the cache and the engine don't help.
	again := func(note string) {
		t.Helper()
		if err := docker.RemoveImage(t.Context(), tag); err != nil {
			require.ErrorIs(t, err, daemon.ErrNotFound, note)
		}
		got, stderr, code := tryBuild(t, p, tag)
		if code != 0 {
			t.Logf("%s: %s", note, stderr)
			got, stderr, code = tryBuild(t, p, tag)
		}
		require.Zero(t, code, "%s: it never heals: %s", note, stderr)
		require.False(t, got.Cached, note)
		require.Equal(t, want.Digest, got.Digest, note)
		require.Equal(t, want.Layers, got.Layers, note)
	}

	if !testenv.Long() {
		// One file of each kind, each in another way, at once.
		ways := slices.Sorted(maps.Keys(damages))
		for i, top := range slices.Sorted(maps.Keys(filesOf(t, dir))) {
			names := filesOf(t, dir)[top]
			damageFile(t, names[len(names)/2], damages[ways[i%len(ways)]])
		}
		again("one of each kind")
	} else {
		for how, change := range damages {
			for top, names := range filesOf(t, dir) {
				for _, name := range names {
					if _, err := os.Stat(name); err != nil || top == "debs" {
						continue // an earlier build has replaced it; packages are read below
					}
					damageFile(t, name, change)
					if top != "layers" && (top != "contexts" || strings.Contains(name, "/trainer/nn/")) {
						again(filepath.Join(top, filepath.Base(name)) + " " + how)
					} // else together with the next
				}
			}
			for _, name := range filesOf(t, dir)["debs"] {
				damageFile(t, name, change)
			}
			require.NoError(t, os.RemoveAll(dir.Path("rootfs"))) // only to make it are they read
			again("packages " + how)
		}
	}

	t.Run("a foreign file in the root file system", func(t *testing.T) {
		lock, err := debian.Input{}.Read(p.Root)
		require.NoError(t, err)
		made, err := lock.Make(t.Context(), input.Options{Cache: dir, Folder: dir.Path("rootfs")}) // it is there
		require.NoError(t, err)
		addForeign(t, made.Path)
		again("a foreign file")
	})

	t.Run("verify", func(t *testing.T) {
		if !testenv.Long() {
			t.Skip("two builds from nothing")
		}
		for top, names := range filesOf(t, dir) {
			for _, name := range names {
				if top != "engine" {
					damageFile(t, name, damages["flipped"])
				}
			}
		}
		stdout, stderr, code := berth(t, p.Root, nil, "verify", "-json")
		require.Zero(t, code, stderr)
		var got Result
		require.NoError(t, json.Unmarshal([]byte(stdout), &got))
		assert.Equal(t, want.Digest, got.Digest)
	})

	t.Run("what a launch keeps", func(t *testing.T) {
		for how, change := range damages {
			for _, name := range filesOf(t, dir)["users"] {
				damageFile(t, name, change)
			}
			out, stderr, code := berth(t, p.Root, nil, "run", "-cmd=getent passwd www-data", "-t="+tag)
			require.Zero(t, code, stderr)
			assert.Equal(t, "www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n", out, how)
		}
	})
}

// addForeign puts a file in front of a compressed tar, as repacking it would.
func addForeign(t *testing.T, name string) {
	t.Helper()
	packed, err := os.Open(name)
	require.NoError(t, err)
	defer packed.Close()
	require.NoError(t, os.Remove(name))
	content, err := zstd.NewReader(packed)
	require.NoError(t, err)
	defer content.Close()
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	w, err := zstd.NewWriter(f)
	require.NoError(t, err)
	front := tar.NewWriter(w) // not closed: more follows
	require.NoError(t, front.WriteHeader(&tar.Header{Name: "foreign", Mode: 0o644, Size: 7}))
	_, err = front.Write([]byte("planted"))
	require.NoError(t, err)
	require.NoError(t, front.Flush())
	_, err = io.Copy(w, content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
}

// TestVerifyComparesTheBaseStage changes the digest that is pinned.
func TestVerifyComparesTheBaseStage(t *testing.T) {
	p := checkout(t, 0o022)
	_, drift, err := BaseDigest(context.Background(), p, progress.New(os.Stderr))
	require.NoError(t, err)
	if len(drift) > 0 {
		testenv.Skip(t, testenv.Snapshot, "locked packages are gone from every mirror: %s", strings.Join(drift, ", "))
	}
	in, err := ReadInputs(p)
	require.NoError(t, err)
	dir, err := cache.Open()
	require.NoError(t, err)
	m := maker{project: p, inputs: in, cache: dir, entries: string(dir)}
	made, _, err := m.make(t.Context(), m.base())
	require.NoError(t, err)
	require.NoError(t, checkBase(p, made[0]))
	writeFile(t, p, p.BaseDigest, "sha256:"+strings.Repeat("0", 64)+"\n")
	err = checkBase(p, made[0])
	require.ErrorIs(t, err, ErrBaseDiffers)
	assert.Contains(t, Explain(err, "go tool mage"), "\n\tgo tool mage pin")
	assert.Equal(t, ExitPinsDiffer, ExitCode(err))
}
