package lint

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/tools/txtar"
)

// unpack writes an archive of testdata into a folder, and returns its files as well.
func unpack(t *testing.T, archive string) (root string, files map[string]string) {
	t.Helper()
	parsed, err := txtar.ParseFile(filepath.Join("testdata", archive))
	require.NoError(t, err)
	root, files = t.TempDir(), map[string]string{}
	for _, f := range parsed.Files {
		files[f.Name] = string(f.Data)
		path := filepath.Join(root, filepath.FromSlash(f.Name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, f.Data, 0o644))
	}
	return root, files
}

func TestFindings(t *testing.T) {
	root, files := unpack(t, "bad.txtar")
	findings, err := Project(t.Context(), root)
	require.NoError(t, err)
	var got []string
	rules := map[string]bool{}
	for _, f := range findings {
		got = append(got, fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Rule))
		rules[f.Rule] = true
		assert.NotEmpty(t, f.Text)
		assert.NotEmpty(t, f.Mend)
	}
	assert.Equal(t, files["want"], strings.Join(got, "\n")+"\n", findings)
	for _, r := range Rules {
		assert.True(t, rules[r.Name], "nothing breaks %s", r.Name)
	}
}

func TestNoFalseAlarm(t *testing.T) {
	root, files := unpack(t, "good.txtar")
	findings, err := Project(t.Context(), root)
	require.NoError(t, err)
	assert.Empty(t, findings)
	read := 0
	for name := range files {
		if kindOf(name) != other {
			read++
		}
	}
	assert.Greater(t, read, 15)
}

// TestOwn is the repository itself, and with it what the set-up writes elsewhere.
func TestOwn(t *testing.T) {
	findings, err := Project(t.Context(), "../..")
	require.NoError(t, err)
	assert.Empty(t, findings)
}

// TestDocumentation: docs/lint.md has each rule in the words of the code.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/lint.md")
	require.NoError(t, err)
	for _, r := range Rules {
		assert.Contains(t, string(text), fmt.Sprintf("| `%s` | %s | %s | %s |\n", r.Name, r.What, r.Why, r.Mend))
	}
}

// TestFilesOfGit: what git ignores isn't read, what it would add is.
func TestFilesOfGit(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": "FROM ubuntu\n", "ignored/Dockerfile": "FROM ubuntu\n", ".gitignore": "ignored/\n", "ä b/Dockerfile": "FROM ubuntu\n",
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	outside := filepath.Join(t.TempDir(), "Dockerfile")
	require.NoError(t, os.WriteFile(outside, []byte("FROM ubuntu\n"), 0o644))
	require.NoError(t, os.Symlink(outside, filepath.Join(root, "x.Dockerfile")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(root, "y.Dockerfile")))
	require.NoError(t, exec.Command("git", "init", "-q", root).Run())
	findings, err := Project(t.Context(), root)
	require.NoError(t, err)
	var names []string
	for _, f := range findings {
		names = append(names, f.File+" "+f.Rule)
	}
	assert.Equal(t, []string{"Dockerfile image-digest", "x.Dockerfile unreadable", "ä b/Dockerfile image-digest"}, names)
}

// TestFix looks digests up in a registry, and commits in repositories.
func TestFix(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	image, err := random.Image(64, 1)
	require.NoError(t, err)
	ref, err := name.ParseReference(host + "/team/base:1")
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image))
	digest, err := image.Digest()
	require.NoError(t, err)

	// A repository that git asks instead of GitHub's.
	repositories := t.TempDir()
	git := func(args ...string) string {
		c := exec.Command("git", args...)
		c.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return strings.TrimSpace(string(out))
	}
	repository := filepath.Join(repositories, "example", "action")
	git("init", "-q", "-b", "main", repository)
	git("-C", repository, "commit", "-q", "--allow-empty", "-m", "one")
	git("-C", repository, "tag", "-a", "-m", "text", "v1")
	git("-C", repository, "tag", "plain")
	first := git("-C", repository, "rev-parse", "HEAD")
	git("-C", repository, "commit", "-q", "--allow-empty", "-m", "two")
	second := git("-C", repository, "rev-parse", "HEAD")
	t.Setenv("GIT_CONFIG_COUNT", "2")
	t.Setenv("GIT_CONFIG_KEY_0", "url."+repositories+"/.insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
	t.Setenv("GIT_CONFIG_KEY_1", "safe.directory")
	t.Setenv("GIT_CONFIG_VALUE_1", "*")

	root := t.TempDir()
	before := map[string]string{
		"Dockerfile": "FROM HOST/team/base:1 AS a\nFROM HOST/team/gone:1\nCOPY --from=HOST/team/base:1 / /\n" +
			"RUN --mount=from=HOST/team/base:1,target=/a \\\n  --mount=from=HOST/team/base:1,target=/b cp /a/a /b/a\nRUN apt-get install -y x\n",
		".github/workflows/x.yml": "on: push\njobs:\n  a:\n    steps:\n      - uses: example/action@v1\n      - uses: \"example/action/sub@plain\" # why\n" +
			"      - uses: example/action@main\r\n      - uses: example/action@nothing\n      - uses: example/none@v1\n    container: HOST/team/base:1\n",
		"main.go": "package p\n\nimport \"dagger.io/dagger\"\n\nfunc f(c *dagger.Client) { c.Container().From(\"HOST/team/base:1\") }\n",
	}
	after := map[string]string{
		"Dockerfile": "FROM HOST/team/base:1@DIGEST AS a\nFROM HOST/team/gone:1\nCOPY --from=HOST/team/base:1@DIGEST / /\n" +
			"RUN --mount=from=HOST/team/base:1@DIGEST,target=/a \\\n  --mount=from=HOST/team/base:1@DIGEST,target=/b cp /a/a /b/a\nRUN apt-get install -y x\n",
		".github/workflows/x.yml": "on: push\njobs:\n  a:\n    steps:\n      - uses: example/action@FIRST # v1\n      - uses: \"example/action/sub@FIRST\" # why\n" +
			"      - uses: example/action@SECOND # main\r\n      - uses: example/action@nothing\n      - uses: example/none@v1\n    container: HOST/team/base:1@DIGEST\n",
		"main.go": "package p\n\nimport \"dagger.io/dagger\"\n\nfunc f(c *dagger.Client) { c.Container().From(\"HOST/team/base:1@DIGEST\") }\n",
	}
	fill := strings.NewReplacer("HOST", host, "DIGEST", digest.String(), "FIRST", first, "SECOND", second)
	for name, text := range before {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(fill.Replace(text)), 0o640))
	}
	findings, err := Project(t.Context(), root)
	require.NoError(t, err)
	fixed, left, err := Fix(t.Context(), root, findings)
	assert.ErrorContains(t, err, "Dockerfile:2: asking "+host)
	assert.ErrorContains(t, err, "x.yml:8: https://github.com/example/action has no tag or branch nothing")
	assert.ErrorContains(t, err, "x.yml:9: git ls-remote https://github.com/example/none")
	assert.Len(t, fixed, 9)
	assert.Len(t, left, 4)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		assert.Equal(t, fill.Replace(after[name]), string(text))
		info, err := os.Stat(filepath.Join(root, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o640), info.Mode())
	}
	rest, err := Project(t.Context(), root)
	require.NoError(t, err)
	assert.Len(t, rest, 4)

	t.Run("a file that changed meanwhile", func(t *testing.T) {
		path := filepath.Join(root, "Dockerfile")
		now := fill.Replace("# new\nFROM HOST/team/base:1\n")
		require.NoError(t, os.WriteFile(path, []byte(fill.Replace("FROM HOST/team/base:1\n")), 0o644))
		findings, err := Project(t.Context(), root)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, []byte(now), 0o644))
		_, _, err = Fix(t.Context(), root, findings)
		assert.ErrorContains(t, err, "Dockerfile: the file changed")
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, now, string(text))
	})
}

func FuzzFile(f *testing.F) {
	for _, archive := range []string{"bad.txtar", "good.txtar"} {
		parsed, err := txtar.ParseFile(filepath.Join("testdata", archive))
		require.NoError(f, err)
		for _, file := range parsed.Files {
			f.Add(file.Name, file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		lines := strings.Count(string(text), "\n") + 1
		for _, found := range File(name, text, nil) {
			assert.GreaterOrEqual(t, found.Line, 1)
			assert.LessOrEqual(t, found.Line, lines)
			if p := found.pin; p != nil {
				assert.Equal(t, p.text, string(text[p.offset:p.offset+len(p.text)]))
			}
		}
	})
}
