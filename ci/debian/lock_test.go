package debian

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
)

func TestLockIsStrict(t *testing.T) {
	const head = "snapshot 20260102T030405Z\nwants x\narchitecture amd64\nsuite debian bookworm main\n"
	sum := strings.Repeat("a", 64)
	line := func(name, version, file, size, sum string) string {
		return "package " + name + " " + version + " all debian " + file + " " + size + " " + sum + "\n"
	}
	good := line("b", "1:2-3~x", "pool/b.deb", "1", sum)
	for name, c := range map[string]struct{ text, says string }{
		"good":            {head + "\n# a comment\n" + good, ""},
		"no packages":     {head, ""},
		"dated":           {head + "date debian bookworm 20260102T000000Z\n" + good, ""},
		"dated twice":     {head + strings.Repeat("date debian bookworm 20260102T000000Z\n", 2), "suite debian bookworm has two dates"},
		"no date":         {head + "date debian bookworm yesterday\n", "line 5: "},
		"empty":           {"", "lacks its first lines"},
		"no suite":        {strings.Join(strings.SplitAfter(head, "\n")[:3], ""), "lacks its first lines"},
		"no time":         {strings.Replace(head, "20260102T030405Z", "yesterday", 1), "line 1: "},
		"another line":    {head + "<<<<<<< HEAD\n", `line 5: "<<<<<<< HEAD" is no line of a lock`},
		"a word short":    {head + strings.Replace(good, " all", "", 1), "is no line of a lock"},
		"unsorted":        {head + good + line("a", "1", "pool/a.deb", "1", sum), "aren't sorted by name"},
		"twice":           {head + good + good, "package b is there twice"},
		"short hash":      {head + line("a", "1", "pool/a.deb", "1", sum[1:]), "is no SHA-256"},
		"no hash":         {head + line("a", "1", "pool/a.deb", "1", strings.Repeat("g", 64)), "is no SHA-256"},
		"upper-case hash": {head + line("a", "1", "pool/a.deb", "1", strings.ToUpper(sum)), "is no SHA-256"},
		"no size":         {head + line("a", "1", "pool/a.deb", "large", sum), "line 5: "},
		"negative size":   {head + line("a", "1", "pool/a.deb", "-1", sum), "makes no sense as a package"},
		"no version":      {head + line("a", ":", "pool/a.deb", "1", sum), "is no version"},
		"path as a name":  {head + line("../a", "1", "pool/a.deb", "1", sum), "makes no sense as a package"},
		"climbs out":      {head + line("a", "1", "../a.deb", "1", sum), "is no path in an archive"},
		"by a detour":     {head + line("a", "1", "pool/../../a.deb", "1", sum), "is no path in an archive"},
		"absolute":        {head + line("a", "1", "/etc/passwd", "1", sum), "is no path in an archive"},
		"a query":         {head + line("a", "1", "pool/a.deb?x", "1", sum), "is no path in an archive"},
		"suite climbs":    {strings.Replace(head, "bookworm", "../..", 1), "plain words"},
		"an endless line": {head + strings.Repeat("x", 1<<20), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "packages.lock")
			require.NoError(t, os.WriteFile(path, []byte(c.text), 0o644))
			l, err := ReadLock(path)
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
			assert.ErrorContains(t, err, "reading "+path)
			assert.Regexp(t, `or remove it .* and type\n\tgo tool mage pin`, advice.Text(err, "go tool mage"), "pin reads it, too")
			assert.Zero(t, l)
		})
	}
	_, err := ReadLock(filepath.Join(t.TempDir(), "packages.lock"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")
}
