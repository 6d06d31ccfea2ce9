package trouble

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const ofRHEL = "RHEL, Rocky, Alma, Oracle Linux"

// names are the distributions that mends may differ for, in the order of the page.
var names = []struct{ id, name string }{
	{"debian", "Debian"}, {"ubuntu", "Ubuntu"}, {"fedora", "Fedora"}, {"rhel", ofRHEL}, {"amzn", "Amazon Linux"},
	{"arch", "Arch"}, {"suse", "openSUSE"}, {"nixos", "NixOS"}, {"", "others"},
}

func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, group := range Rows() {
		for _, r := range group.Rows {
			assert.Regexp(t, `^[a-z][a-z0-9-]+$`, r.Name)
			assert.False(t, seen[r.Name], "%s is there twice", r.Name)
			seen[r.Name] = true
			found, err := Find(r.Name)
			require.NoError(t, err)
			assert.Same(t, r, found)

			assert.Contains(t, states[1:], r.State, r.Name)
			assert.Regexp(t, `^[^A-Z].*[^.]$|^[A-Z].*[^.]$`, r.Wrong, r.Name)
			assert.NotRegexp(t, `\.$|\n`, r.Wrong, "%s: it is a clause", r.Name)
			assert.Regexp(t, `[.!]$`, r.Means, r.Name)
			assert.NotContains(t, r.Means, "\n", r.Name)
			assert.Contains(t, r.Mend, "", "%s: what do others do?", r.Name)
			for id, text := range r.Mend {
				assert.True(t, slices.ContainsFunc(names, func(n struct{ id, name string }) bool { return n.id == id }), "%s: who is "+
					"%q?", r.Name, id)
				for _, command := range Commands(text) {
					assert.NotRegexp(t, `[.:]$`, command, "%s: it is to be typed as it is", r.Name)
				}
				for line := range strings.Lines(text) {
					assert.NotRegexp(t, ` $|^\s*$|^\t\t| \t`, strings.TrimSuffix(line, "\n"), r.Name)
				}
				assert.Regexp(t, `(^|\n)(\t[^\n]+|[^\n]*[.!)]|[^\n]*https://\S+)$`, text, "%s: it ends with a command or a full stop", r.Name)
			}
			for _, s := range strings.Split(r.Source, ", ") {
				assert.Regexp(t, `^(https://\S+)?$`, s, r.Name)
			}
		}
	}
	_, err := Find("nonsense")
	assert.ErrorContains(t, err, `there is no row "nonsense". There are `)
}

func TestMendOn(t *testing.T) {
	m := Mend{"": "others", "debian": "Debian", "fedora": "Fedora"}
	for want, ids := range map[string][]string{
		"Debian": {"ubuntu", "debian"}, "Fedora": {"rocky", "rhel", "centos", "fedora"}, "others": {"gentoo"},
	} {
		assert.Equal(t, want, m.On(System{IDs: ids}))
	}
	assert.Equal(t, "others", m.On(System{}))
	amazon := parseSystem("ID=\"amzn\"\nID_LIKE=\"fedora\"\n")
	assert.Contains(t, Commands(NoDocker.Mend.On(amazon)), "sudo dnf install docker")
	for _, s := range []System{amazon, parseSystem("ID=\"ol\"\nID_LIKE=\"fedora\"\n")} {
		assert.Equal(t, NoDriver.Mend["rhel"], NoDriver.Mend.On(s))
		assert.Equal(t, NoToolkit.Mend["fedora"], NoToolkit.Mend.On(s))
	}
	assert.Equal(t, []string{"a b", "c"}, Commands("Type\n\ta b\nor\n\tc\nand wait."))
}

func TestReadSystem(t *testing.T) {
	for text, want := range map[string]System{
		"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n": {"Debian GNU/Linux 12 " +
			"(bookworm)", []string{"debian"}},
		"NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n": {"Linux " +
			"Mint", []string{"linuxmint", "ubuntu", "debian"}},
		"# ID=x\nID='rocky'\nID_LIKE=\"rhel centos fedora\"\nPRETTY_NAME=\"Rocky \\\"9\\\"\"": {
			`Rocky "9"`, []string{"rocky", "rhel", "centos", "fedora"}},
		"NAME=\"Oracle Linux Server\"\nID=\"ol\"\nID_LIKE=\"fedora\"\nPRETTY_NAME=\"Oracle Linux Server 9.3\"\n": {"Oracle " +
			"Linux Server 9.3", []string{"ol", "rhel", "fedora"}},
		"NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nID_LIKE=\"fedora\"\nPRETTY_NAME=\"Amazon Linux 2023.9.20251020\"\n": {"Amazon " +
			"Linux 2023.9.20251020", []string{"amzn", "rhel", "fedora"}},
		"NAME=Nobara\nID=nobara\nID_LIKE=\"fedora\"\n": {"Nobara", []string{"nobara", "fedora"}},
		"nonsense": {"", []string{}},
	} {
		for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
			root := t.TempDir()
			path := filepath.Join(root, name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
			assert.Equal(t, want, ReadSystem(root))
		}
	}
	assert.Empty(t, ReadSystem(t.TempDir()))
}

func FuzzParseSystem(f *testing.F) {
	f.Add("ID=debian\nPRETTY_NAME=\"x\"")
	f.Add("ID_LIKE='\nNAME=\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		for _, id := range parseSystem(text).IDs {
			assert.NotEmpty(t, id)
			assert.NotContains(t, id, " ")
		}
	})
}

// TestPage: docs/troubleshooting.md is made of the rows. With BERTH_UPDATE set, it is
// written anew.
func TestPage(t *testing.T) {
	const path = "../../docs/troubleshooting.md"
	have := markdown()
	if os.Getenv("BERTH_UPDATE") != "" {
		require.NoError(t, os.WriteFile(path, []byte(have), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), have, "type: BERTH_UPDATE=1 go test ./internal/trouble -run Page")
}

const pageBegins = `# Troubleshooting

<!-- Made of the rows of internal/trouble. To write it anew: BERTH_UPDATE=1 go test ./internal/trouble -run Page -->

<!-- All blocks not run: root -->

<!-- run here -->
` + "```sh" + `
go tool mage doctor                    # what is wrong with this machine, what that means, and what mends it here
go tool mage doctor -row=no-toolkit    # one row of this page, for this machine's distribution
` + "```" + `

` + "`mage doctor`" + ` looks at everything at once, changes nothing, needs neither Docker nor root, and takes some seconds at most. It exits with 3 if there is a
*fault*, something that is needed and broken, and else with 0: a *warning* is about what works only in part, or not for long; that there is no GPU or no
display is ` + "`ok`" + `. ` + "`-json`" + ` is for programs. Errors of the other commands end with the name of their row.

`

var title = regexp.MustCompile(`^[a-z]`)

// whose are the distributions that a mend is for: one that has none of its own takes
// that of which it is like.
func whose(m Mend, id, name string) string {
	for _, like := range []struct{ parent, id, name string }{
		{"debian", "ubuntu", "Ubuntu"}, {"fedora", "rhel", ofRHEL}, {"rhel", "amzn", "Amazon Linux"},
	} {
		if _, own := m[like.id]; id == like.parent && !own {
			name += ", " + whose(m, like.id, like.name)
		}
	}
	return name
}

// markdown is the page.
func markdown() string {
	var b strings.Builder
	b.WriteString(pageBegins)
	for _, group := range Rows() {
		fmt.Fprintf(&b, "## %s\n\n", group.Title)
		for _, r := range group.Rows {
			wrong := title.ReplaceAllStringFunc(r.Wrong, strings.ToUpper)
			fmt.Fprintf(&b, "### %s\n\n**%s.** (%s)\n\n%s\n\n", r.Name, wrong, r.State, r.Means)
			for _, n := range names {
				text, ok := r.Mend[n.id]
				switch {
				case !ok:
				case len(r.Mend) == 1:
					b.WriteString(block("", text) + "\n")
				default:
					fmt.Fprintf(&b, "- %s: %s", whose(r.Mend, n.id, n.name), block("  ", text))
				}
			}
			if len(r.Mend) > 1 {
				b.WriteString("\n")
			}
			if r.Source != "" {
				fmt.Fprintf(&b, "Source: %s\n\n", r.Source)
			}
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// block is a mend in Markdown: lines to be typed become code. All lines but the first
// begin with the margin.
func block(margin, text string) string {
	text = strings.ReplaceAll(text, "{berth}", "go tool mage")
	typed := false
	var lines []string
	for line := range strings.Lines(text + "\n") {
		command, isTyped := strings.CutPrefix(line, "\t")
		switch {
		case isTyped && !typed:
			lines = append(lines, "", "```")
		case !isTyped && typed:
			lines = append(lines, "```", "")
		}
		typed = isTyped
		lines = append(lines, strings.TrimSuffix(command, "\n"))
	}
	if typed {
		lines = append(lines, "```")
	}
	for i, line := range lines[1:] {
		if line != "" {
			lines[i+1] = margin + line
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestNamesOfSystems: each distribution of the page is that of some mend.
func TestNamesOfSystems(t *testing.T) {
	used := map[string]bool{}
	for _, group := range Rows() {
		for _, r := range group.Rows {
			for id := range maps.Keys(r.Mend) {
				used[id] = true
			}
		}
	}
	for _, n := range names {
		assert.True(t, used[n.id], n.name)
	}
}
