package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A container can write to the checkout, and so to what its next launch begins
// with: it gains no path of the host by that.
func TestContainerThatRewritesTheCheckout(t *testing.T) {
	const refused = "and Berth follows none in the checkout"
	tests := map[string]struct {
		rewrite string // in the workspace; $1 is a folder of the host with files at many places
		mounts  string
		want    string // in the next launch's complaint; "" if it starts
	}{
		"home to the root":     {"cd rootfs/home && mv user u && ln -s / user", "", refused},
		"home to a folder":     {`cd rootfs/home && mv user u && ln -s "$1" user`, "", refused},
		"home within":          {`cd rootfs/home && mv user u && ln -s ../../.git user`, "", refused},
		"its parent":           {`cd rootfs && mv home h && ln -s "$1/home" home`, "", refused},
		"its parent's parent":  {`mv rootfs r && ln -s "$1" rootfs`, "", refused},
		"skeleton":             {`cd rootfs/home && mv user u && mv skel s && ln -s "$1" skel`, "", refused},
		"file in the skeleton": {`cd rootfs/home && mv user u && ln -s "$1/secret" skel/secret`, "", ""},
		"fifo in the skeleton": {`cd rootfs/home && mv user u && mkfifo skel/fifo`, "",
			"fifo in the skeleton is neither a file, a folder nor a link"},
		"place of a folder's mount": {`ln -s "$1" a`, "/usr/share:/my_workspace/a/made", "path escapes from parent"},
		"place of a file's mount":   {`ln -s "$1/made" a`, "/etc/hostname:/my_workspace/a", ""}, // the container's own file
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPerson(t)
			p.options.Network = "none"
			outside := t.TempDir()
			files := []string{"secret", "home/secret", "home/user/secret", "user/secret"}
			for _, f := range files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(outside, f)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(outside, f), []byte("the host's secret"), 0o644))
			}
			require.NoError(t, os.Mkdir(filepath.Join(p.options.Root, ".git"), 0o755))
			if name == "home to the root" {
				require.Equal(t, result{}, p.run(test.rewrite, ""))
			} else { // as the container would, and faster
				require.NoError(t, homeIn(p.options.Root, p.options).seed(t.Context()))
				rewrite := exec.Command("sh", "-c", test.rewrite, "sh", outside)
				rewrite.Dir = p.options.Root
				require.NoError(t, rewrite.Run())
			}

			r := p.runWith(func(o *Options) {
				o.Mounts, o.Command = test.mounts, "touch ~/written; cat ~/secret ~/home/secret ~"+outside+"/secret 2> /dev/null; true"
			}, "")
			assert.NotContains(t, r.out, "secret")
			if test.want == "" {
				assert.Equal(t, 0, r.code, r.err)
			} else {
				assert.Equal(t, ExitDaemon, r.code)
				assert.Contains(t, r.err, test.want)
			}
			var left []string
			require.NoError(t, filepath.WalkDir(outside, func(path string, e os.DirEntry, err error) error {
				if rel, _ := filepath.Rel(outside, path); !e.IsDir() || e.Name() == "made" {
					left = append(left, rel)
				}
				return err
			}))
			assert.ElementsMatch(t, files, left)
			assert.NoFileExists(t, "/written")
			assert.NoFileExists(t, filepath.Join(p.options.Root, ".git", "written"))
		})
	}
}

// What a container swaps for a link after the plan was made isn't mounted either.
func TestLinkMadeAfterThePlan(t *testing.T) {
	checkout := t.TempDir()
	checkout, err := filepath.EvalSymlinks(checkout)
	require.NoError(t, err)
	h := workstation()
	h.Root, h.Dir = checkout, checkout
	data := filepath.Join(checkout, "data")
	require.NoError(t, os.Mkdir(data, 0o755))
	o := options()
	o.Mounts = "data:/data"
	plan, err := NewPlan(h, o)
	require.NoError(t, err)
	require.NoError(t, plan.check())
	require.NoError(t, os.Remove(data))
	require.NoError(t, os.Symlink("/", data))
	assert.ErrorContains(t, plan.check(), data+" is a symbolic link to /, and Berth follows none")
}

func TestSourcesAreShownWithoutLinks(t *testing.T) {
	p := newPerson(t)
	real, link := t.TempDir(), filepath.Join(p.options.Root, "data")
	require.NoError(t, os.Symlink(real, link))
	p.options.Mounts = link + ":/data"
	plan, err := NewPlan(hostOf(t, p), p.options)
	require.NoError(t, err)
	assert.Contains(t, plan.Table(), real+" at /data\n")
	assert.NotContains(t, plan.Shell(), link)
	assert.Equal(t, []string{"-v: a symbolic link in the checkout leads " + link + " to " + real + ", which the container gets"}, plan.Notes)
}

// manyFiles fills a person's skeleton, so that seeding takes its time.
func manyFiles(t *testing.T, checkout string, n int) {
	for i := range n {
		name := filepath.Join(checkout, ours.Skeleton, "many", fmt.Sprint(i))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, fmt.Appendf(nil, "%d\n", i), 0o644))
	}
}

// complete requires that a home has every file of the skeleton, and no other.
func complete(t *testing.T, checkout string) {
	t.Helper()
	for _, pair := range [][2]string{{ours.Skeleton, ours.Home}, {ours.Home, ours.Skeleton}} {
		require.NoError(t, filepath.WalkDir(filepath.Join(checkout, pair[0]), func(path string, e os.DirEntry, err error) error {
			rel, _ := filepath.Rel(filepath.Join(checkout, pair[0]), path)
			if err != nil || e.IsDir() || e.Name() == ".gitkeep" {
				return err
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			got, err := os.ReadFile(filepath.Join(checkout, pair[1], rel))
			require.NoError(t, err)
			require.Equal(t, string(want), string(got), rel)
			return nil
		}))
	}
	assert.NoDirExists(t, filepath.Join(checkout, ours.Home, seeding))
}

func TestFirstLaunchesAtOnce(t *testing.T) {
	p := newPerson(t)
	p.options.Network = "none"
	manyFiles(t, p.options.Root, 200)
	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() {
			r := p.run("ls ~/many | wc -l; ls -A ~ | wc -l", "")
			assert.Equal(t, result{out: "200\n3\n"}, r)
		})
	}
	wait.Wait()
	complete(t, p.options.Root)

	for round := range 10 {
		checkout := t.TempDir()
		manyFiles(t, checkout, 30)
		if round%2 == 0 { // as in a fresh clone
			require.NoError(t, os.MkdirAll(filepath.Join(checkout, ours.Home), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(checkout, ours.Home, ".gitkeep"), nil, 0o644))
		}
		for range 8 {
			wait.Go(func() {
				if assert.NoError(t, homeIn(checkout, ours).seed(t.Context())) {
					complete(t, checkout)
				}
			})
		}
		wait.Wait()
	}
}

func TestKillWhileSeeding(t *testing.T) {
	const files = 2000
	p := newPerson(t)
	p.options.Network = "none"
	manyFiles(t, p.options.Root, files)
	p.run("true", "") // so that the image is known
	for range 5 {
		require.NoError(t, os.RemoveAll(filepath.Join(p.options.Root, ours.Home)))
		c := p.launch(shell("true"))
		require.NoError(t, c.Start())
		many := filepath.Join(p.options.Root, ours.Home, "many")
		require.Eventually(t, func() bool { return len(entries(t, many)) > 0 }, 20*time.Second, time.Millisecond)
		require.NoError(t, c.Process.Kill())
		c.Wait()
		if len(entries(t, many)) == files {
			continue // the kill came too late
		}
		r := p.run("ls ~/many | wc -l", "")
		assert.Equal(t, result{out: fmt.Sprintln(files)}, r)
		complete(t, p.options.Root)
		return
	}
	require.Fail(t, "no kill met a seeding")
}

// A folder that is closed to others stays so: ssh refuses an open one.
func TestFoldersOfTheSkeletonKeepTheirModes(t *testing.T) {
	checkout := t.TempDir()
	h := homeIn(checkout, ours)
	modes := map[string]os.FileMode{"closed": 0o700, "open": 0o755, "read-only": 0o500}
	for name, mode := range modes {
		require.NoError(t, os.MkdirAll(filepath.Join(h.Skeleton, name), 0o755))
		require.NoError(t, os.Chmod(filepath.Join(h.Skeleton, name), mode))
	}
	defer syscall.Umask(syscall.Umask(0))
	require.NoError(t, h.seed(t.Context()))
	for name, mode := range modes {
		info, err := os.Stat(filepath.Join(h.Path, name))
		require.NoError(t, err)
		assert.Equal(t, mode|0o700, info.Mode().Perm(), name)
	}
}

// A home that somebody lives in is left alone, also if they have emptied it: a
// container of theirs may have it mounted.
func TestHomeIsFilledNotReplaced(t *testing.T) {
	checkout := t.TempDir()
	h := homeIn(checkout, ours)
	require.NoError(t, os.MkdirAll(h.Path, 0o750))
	before, err := os.Stat(h.Path)
	require.NoError(t, err)
	require.NoError(t, h.seed(t.Context()), "without a skeleton")
	manyFiles(t, checkout, 3)
	require.NoError(t, h.seed(t.Context()))
	complete(t, checkout)
	after, err := os.Stat(h.Path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after))
	assert.Equal(t, before.Mode(), after.Mode())

	require.NoError(t, os.Remove(filepath.Join(h.Path, "many", "1")))
	require.NoError(t, h.seed(t.Context()))
	assert.NoFileExists(t, filepath.Join(h.Path, "many", "1"))
}
