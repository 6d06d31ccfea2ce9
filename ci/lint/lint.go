// Package lint finds what a project takes from elsewhere without a pin: images without a
// digest, packages without a lock, downloads without a checksum, actions without a commit.
// It reads Dockerfiles with BuildKit's parser, shell with that of shfmt, workflows as YAML
// and Go by its own. File and Images are pure functions; only Project reads files, only Fix
// writes them, and only it and ImageDigest ask registries and repositories.
package lint

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Rule is something that has to be pinned.
type Rule struct {
	Name string // as in findings and in the comments that allow one
	What string // what breaks it
	Why  string // what can happen if it is broken
	Mend string // what to do
}

// Rules are all rules.
var Rules = []Rule{
	{imageDigest, "`FROM`, `COPY --from`, `RUN --mount=from=`, `# syntax=`, an image in a workflow or `From(\"…\")` in Go code for Dagger that names an image without `@sha256:`",
		"a tag moves: the next build starts from something else", "write `name:tag@sha256:…`; `-fix` looks the digest up"},
	{aptLock, "`apt-get install` and upgrades in a Dockerfile",
		"each build takes the archive's versions of that day", "list the packages in `docker/packages.toml`, and type `go tool mage pin`"},
	{pipHashes, "`pip install` from an index without hashes",
		"the index may serve other files tomorrow, and other versions of what these depend on", "`--require-hashes` with a requirements file that has them, or wheels from a lock"},
	{downloadChecksum, "`ADD` of a URL without `--checksum`; `curl` and `wget` without a check of what came",
		"whoever holds the server, or its name, is in the image", "`ADD --checksum=sha256:…`, or `sha256sum -c` in the same stage"},
	{gitCommit, "`git clone` without checking out a commit; `ADD` of a repository without one",
		"branches and tags move", "`git checkout` of the commit's 40 digits, in the same stage"},
	{goVersion, "`go install`, `go run` and `go get` with `@latest`, `@upgrade`, `@patch` or a branch",
		"each run takes the version of that day", "name the version, or make it a tool of go.mod"},
	{actionCommit, "`uses:` of an action or a workflow by tag or branch",
		"whoever can move the tag runs code in your job, with its secrets", "the commit's 40 digits, and the tag in a comment; `-fix` looks the commit up"},
}

const (
	imageDigest      = "image-digest"
	aptLock          = "apt-lock"
	pipHashes        = "pip-hashes"
	downloadChecksum = "download-checksum"
	gitCommit        = "git-commit"
	goVersion        = "go-version"
	actionCommit     = "action-commit"
	unreadable       = "unreadable" // not in Rules: the file can't be parsed, so nothing in it was checked
)

// A Finding is something that isn't pinned.
type Finding struct {
	File string `json:"file"` // relative to the project's root, with slashes
	Line int    `json:"line"` // from 1
	Rule string `json:"rule"`
	Text string `json:"text"` // what is there, and what is missing
	Mend string `json:"mend"` // what to write instead
	// Fixable reports whether Fix can mend it: by a digest or a commit that it looks up.
	Fixable bool `json:"fixable"`

	first int // line on which the whole instruction begins
	pin   *pin
}

// String is a line as compilers print them.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s. %s", f.File, f.Line, f.Rule, f.Text, f.Mend)
}

// A pin is what Fix looks up for a finding, and where it writes it.
type pin struct {
	image      string // reference of an image, or
	repository string // owner/name of an action's repository, with
	ref        string // its tag or branch
	text       string // what is replaced
	offset     int    // where it begins in the file, in bytes
	comment    bool   // the ref goes into a comment at the end of the line
}

// file is one that is being read, and what was found in it.
type file struct {
	name     string
	text     string
	lines    []string
	read     func(name string) ([]byte, error) // other files of the project
	findings []Finding
	quick    bool    // only the images of a Dockerfile are wanted, not what is wrong in its commands
	images   []Image // of registries, that a Dockerfile takes something from
}

// File checks one file, by its name: a Dockerfile, a workflow, an action or Go code; others
// have no findings. The name is relative to the project's root, with slashes; read
// returns other files of the project, such as requirements of Python.
func File(name string, text []byte, read func(name string) ([]byte, error)) []Finding {
	f := &file{name: name, text: string(text), lines: strings.Split(string(text), "\n"), read: read}
	switch kindOf(name) {
	case dockerfile:
		f.dockerfile()
	case workflow:
		f.workflow()
	case goSource:
		f.goSource()
	}
	f.findings = slices.DeleteFunc(f.findings, f.allowed)
	slices.SortStableFunc(f.findings, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	return f.findings
}

// A kind is what a file has in it.
type kind int

const (
	other kind = iota
	dockerfile
	workflow
	goSource
)

// kindOf knows files by their names, as Docker, GitHub and Go do.
func kindOf(name string) kind {
	base, dir := path.Base(name), path.Dir(name)
	lower := strings.ToLower(base)
	switch {
	case strings.HasSuffix(base, ".go"):
		return goSource
	case strings.HasSuffix(lower, ".dockerignore"), strings.HasSuffix(lower, ".containerignore"), strings.HasSuffix(lower, ".md"):
		return other
	case lower == "dockerfile", lower == "containerfile", strings.HasPrefix(lower, "dockerfile."), strings.HasPrefix(lower, "containerfile."),
		strings.HasSuffix(lower, ".dockerfile"), strings.HasSuffix(lower, ".containerfile"):
		return dockerfile
	case (dir == ".github/workflows" || strings.HasSuffix(dir, "/.github/workflows")) && (strings.HasSuffix(base, ".yml") || strings.HasSuffix(base, ".yaml")),
		base == "action.yml", base == "action.yaml":
		return workflow
	}
	return other
}

// add records a finding; first is the line on which the whole instruction begins.
func (f *file) add(first, line int, rule, mend, format string, args ...any) *Finding {
	f.findings = append(f.findings, Finding{
		File: f.name, Line: line, Rule: rule, Text: fmt.Sprintf(format, args...), Mend: mend, first: first,
	})
	return &f.findings[len(f.findings)-1]
}

// only is where a text stands on a line, in bytes from its beginning; -1 unless it stands
// there once.
func (f *file) only(line int, text string) int {
	if strings.Count(f.lines[line-1], text) != 1 {
		return -1
	}
	return strings.Index(f.lines[line-1], text)
}

// fix says how Fix can mend a finding: by replacing the text that begins at a byte of its
// line. It can't where that is -1.
func (f *file) fix(found *Finding, p pin, text string, column int) {
	if column < 0 {
		return
	}
	p.text, p.offset = text, column
	for _, line := range f.lines[:found.Line-1] {
		p.offset += len(line) + 1
	}
	found.pin, found.Fixable = &p, true
}

// allowance is a comment that allows what a rule finds, for a reason that it has to give:
//
//	# berth:allow image-digest: the job before builds it
var allowance = regexp.MustCompile(`(?:#|//)\s*berth:allow\s+([a-z-]+):\s*\S`)

// allowed reports whether a comment allows a finding: on its line, or right above it or its
// instruction.
func (f *file) allowed(found Finding) bool {
	allows := func(line int) bool {
		match := allowance.FindStringSubmatch(f.lines[line-1])
		return match != nil && match[1] == found.Rule
	}
	if allows(found.Line) {
		return true
	}
	for _, start := range []int{found.Line, found.first} {
		for line := start - 1; line > 0 && isComment(f.lines[line-1]); line-- {
			if allows(line) {
				return true
			}
		}
	}
	return false
}

func isComment(line string) bool {
	line = strings.TrimSpace(line)
	return strings.HasPrefix(line, "#") || strings.HasPrefix(line, "//")
}

// pinned reports whether a reference of an image has a digest.
func pinned(image string) bool {
	return digest.MatchString(image)
}

var (
	digest = regexp.MustCompile(`@sha256:[0-9a-f]{64}$`)
	commit = regexp.MustCompile(`^[0-9a-f]{40}$|^[0-9a-f]{64}$`)
)

// image records an image without a digest. exact is its text in the file, which differs
// where variables were expanded; column is where that begins, -1 if Fix may not replace it.
func (f *file) image(first, line, column int, where, image, exact string) {
	if pinned(image) {
		return
	}
	mend := fmt.Sprintf("Write %s@sha256:…; lint -fix looks the digest up", image)
	if exact != image {
		mend = "Give the variable a default with a digest: name:tag@sha256:…"
	}
	found := f.add(first, line, imageDigest, mend, "%s %s has no digest", where, image)
	if exact == image {
		f.fix(found, pin{image: image}, exact, column)
	}
}
