package lint

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// A script says where a text of shell commands stands.
type script struct {
	dockerfile  bool      // in a Dockerfile, so that apt's packages could be locked
	first, line int       // lines on which its instruction and it begin
	env         variables // may be nil
	stage       *stage    // keeps what is to be checked later on
}

// A pendingDownload is something that a later command may still check.
type pendingDownload struct {
	first, line      int
	rule, text, mend string
}

func (f *file) report(all []pendingDownload) {
	for _, p := range all {
		f.add(p.first, p.line, p.rule, p.mend, "%s", p.text)
	}
}

// script checks a text of shell commands. What isn't a POSIX shell's or bash's is skipped:
// the image's shell may be any.
func (f *file) script(text string, at script) {
	parsed, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		return
	}
	env := variables{}
	for name, value := range at.env {
		env[name] = value
	}
	inner := at
	inner.env = env
	syntax.Walk(parsed, func(node syntax.Node) bool {
		call, ok := node.(*syntax.CallExpr)
		if !ok {
			return true
		}
		for _, a := range call.Assigns {
			if len(call.Args) == 0 && a.Name != nil && a.Value != nil {
				if value := valueOf(a.Value, env); strings.Contains(value, "$") {
					delete(env, a.Name.Value)
				} else {
					env[a.Name.Value] = value
				}
			}
		}
		var words []string
		for _, w := range call.Args {
			words = append(words, valueOf(w, env))
		}
		if len(words) > 0 {
			f.words(words, at.line+int(call.Pos().Line())-1, inner)
		}
		return true
	})
}

// valueOf is a word without quotes, and with its variables replaced where their values are
// known. What isn't known stays, with its dollar.
func valueOf(word *syntax.Word, env variables) string {
	var b strings.Builder
	var parts func([]syntax.WordPart)
	parts = func(all []syntax.WordPart) {
		for _, p := range all {
			switch p := p.(type) {
			case *syntax.Lit:
				b.WriteString(strings.ReplaceAll(strings.ReplaceAll(p.Value, "\\\n", ""), `\`, ""))
			case *syntax.SglQuoted:
				b.WriteString(p.Value)
			case *syntax.DblQuoted:
				parts(p.Parts)
			case *syntax.ParamExp:
				value, known := "", false
				if p.Param != nil {
					value, known = env[p.Param.Value]
				}
				if known && p.Exp == nil && p.Slice == nil && p.Repl == nil && p.Index == nil && !p.Length && !p.Excl {
					b.WriteString(value)
				} else if p.Param != nil {
					b.WriteString("${" + p.Param.Value + "}")
				} else {
					b.WriteString("${}")
				}
			default:
				b.WriteString("$()")
			}
		}
	}
	parts(word.Parts)
	return b.String()
}

// wrappers are commands that run the command that follows them and their flags, with
// those flags that take the next word.
var wrappers = map[string][]string{
	"command": nil, "doas": {"-u"}, "eatmydata": nil, "env": {"-u", "-C"}, "exec": {"-a"}, "nice": {"-n"}, "nohup": nil,
	"sudo": {"-u", "-g"}, "time": {"-o", "-f"}, "xargs": {"-a", "-d", "-E", "-I", "-L", "-n", "-P", "-s"},
}

// assignment matches what env takes before a command.
var assignment = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*=`)

var (
	pipName    = regexp.MustCompile(`^pip[0-9.]*$`)
	pythonName = regexp.MustCompile(`^python[0-9.]*$`)
)

// words checks one command.
func (f *file) words(words []string, line int, at script) {
	for len(words) > 0 {
		with, ok := wrappers[path.Base(words[0])]
		if !ok {
			break
		}
		words = words[1:]
		for len(words) > 0 && (strings.HasPrefix(words[0], "-") || assignment.MatchString(words[0])) {
			skip := 1
			if slices.Contains(with, words[0]) {
				skip = min(2, len(words))
			}
			words = words[skip:]
		}
	}
	if len(words) == 0 {
		return
	}
	name, args := path.Base(words[0]), words[1:]
	switch {
	case posix.MatchString(name) && len(args) >= 2 && strings.HasPrefix(args[0], "-") && strings.HasSuffix(args[0], "c"):
		at.line = line
		f.script(args[1], at)
	case (name == "apt-get" || name == "apt" || name == "aptitude") && at.dockerfile:
		f.apt(name, args, line, at)
	case pipName.MatchString(name):
		f.pip(args, line, at)
	case pythonName.MatchString(name) && len(args) > 1 && args[0] == "-m" && args[1] == "pip":
		f.pip(args[2:], line, at)
	case name == "uv" && len(args) > 0 && args[0] == "pip":
		f.pip(args[1:], line, at)
	case name == "curl" || name == "wget":
		f.download(name, args, line, at)
	case checksums.MatchString(name), name == "gpg" && slices.Contains(args, "--verify"), name == "gpgv", name == "minisign":
		at.stage.settle(downloadChecksum)
	case name == "cosign" && len(args) > 0 && strings.HasPrefix(args[0], "verify"):
		at.stage.settle(downloadChecksum)
	case name == "git":
		f.git(args, line, at)
	case name == "go" && len(args) > 0 && slices.Contains([]string{"install", "run", "get"}, args[0]):
		f.golang(args, line, at)
	}
}

// checksums matches commands whose sum, compared or checked, tells what came.
var checksums = regexp.MustCompile(`^(sha(256|384|512)sum|shasum|b2sum)$`)

// settle forgets what a check makes good.
func (s *stage) settle(rule string) {
	s.pending = slices.DeleteFunc(s.pending, func(p pendingDownload) bool { return p.rule == rule })
}

// operands are the words that are no flags, and no values of flags. with lists the flags
// that take the next word.
func operands(args []string, with ...string) (all []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--":
			return append(all, args[i+1:]...)
		case slices.Contains(with, args[i]):
			i++
		case !strings.HasPrefix(args[i], "-"):
			all = append(all, args[i])
		}
	}
	return all
}

func (f *file) apt(name string, args []string, line int, at script) {
	for _, flag := range []string{"-s", "--simulate", "--dry-run", "--print-uris"} {
		if slices.Contains(args, flag) {
			return
		}
	}
	all := operands(args, "-o", "--option", "-c", "--config-file", "-t", "--target-release", "--default-release", "-a")
	if len(all) == 0 {
		return
	}
	packages := slices.DeleteFunc(slices.Clone(all[1:]), func(p string) bool {
		return strings.HasSuffix(p, ".deb") && strings.Contains(p, "/")
	})
	mend := "List the packages in docker/packages.toml, which pin locks"
	switch all[0] {
	case "install":
		if len(packages) > 0 {
			f.add(at.first, line, aptLock, mend, "%s install %s takes the versions of the day", name, short(packages))
		}
	case "upgrade", "dist-upgrade", "full-upgrade", "safe-upgrade", "build-dep":
		f.add(at.first, line, aptLock, mend, "%s %s takes the versions of the day", name, all[0])
	}
}

// short are words for a text, not too many of them.
func short(words []string) string {
	if len(words) > 3 {
		return strings.Join(words[:3], " ") + " …"
	}
	return strings.Join(words, " ")
}

// pipFlags are those of pip and of uv that take the next word.
var pipFlags = []string{
	"-r", "--requirement", "--requirements", "-c", "--constraint", "-e", "--editable", "-i", "--index-url", "--extra-index-url", "-f", "--find-links",
	"-t", "--target", "--prefix", "--root", "--platform", "--python-version", "--python", "--src", "--only-binary", "--no-binary", "--progress-bar",
	"--trusted-host", "--timeout", "--retries", "--cache-dir", "--config-settings", "--log", "--upgrade-strategy", "--proxy", "--cert", "--report",
	"--index", "--default-index", "--index-strategy", "--torch-backend",
}

func (f *file) pip(args []string, line int, at script) {
	given := func(flag, variable string) bool {
		value := at.env[variable]
		return slices.Contains(args, flag) || value != "" && value != "0"
	}
	all := operands(args, pipFlags...)
	if len(all) == 0 || !slices.Contains([]string{"install", "download", "wheel", "sync"}, all[0]) ||
		given("--require-hashes", "PIP_REQUIRE_HASHES") || given("--no-index", "PIP_NO_INDEX") {
		return
	}
	var open []string // what comes from elsewhere, or may bring something from there
	for _, o := range all[1:] {
		if !isLocal(o) || !slices.Contains(args, "--no-deps") {
			open = append(open, o)
		}
	}
	for i, a := range args {
		flag, value, joined := strings.Cut(a, "=")
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		switch flag {
		case "-e", "--editable":
			if !isLocal(value) || !slices.Contains(args, "--no-deps") {
				open = append(open, value)
			}
		case "-r", "--requirement", "--requirements":
			if !f.hashed(value) {
				open = append(open, "-r "+value)
			}
		}
	}
	if len(open) > 0 {
		f.add(at.first, line, pipHashes, "Install from a requirements file with --hash for each package, by --require-hashes",
			"pip %s %s checks no hashes", all[0], short(open))
	}
}

// isLocal reports whether what pip installs is on the machine.
func isLocal(operand string) bool {
	return !strings.Contains(operand, "://") && (strings.HasPrefix(operand, ".") || strings.HasPrefix(operand, "/") || strings.HasSuffix(operand, ".whl"))
}

// hashed reports whether a requirements file of the project has hashes, by which pip then
// checks each. In an image it may be elsewhere, under its name.
func (f *file) hashed(name string) bool {
	if f.read == nil {
		return false
	}
	for _, candidate := range []string{path.Join(path.Dir(f.name), name), path.Clean(name), path.Join(path.Dir(f.name), path.Base(name)), path.Base(name)} {
		if text, err := f.read(strings.TrimPrefix(candidate, "/")); err == nil {
			return strings.Contains(string(text), "--hash=")
		}
	}
	return false
}

func (f *file) download(name string, args []string, line int, at script) {
	for i, a := range args {
		switch {
		case a == "-I", a == "--head", a == "--spider", a == "-o" && i+1 < len(args) && args[i+1] == "/dev/null",
			a == "-d", strings.HasPrefix(a, "--data"), a == "-T", a == "--upload-file",
			(a == "-X" || a == "--request") && i+1 < len(args) && args[i+1] != "GET":
			return // it asks or tells, and keeps nothing
		}
	}
	for _, a := range args {
		if isRemote(a) || strings.HasPrefix(a, "${") && strings.Contains(strings.ToUpper(a), "URL") {
			at.stage.pending = append(at.stage.pending, pendingDownload{
				at.first, line, downloadChecksum, name + " " + a + " is used without a check of what came",
				"Compare it with a sum that stands here: echo 'SUM  FILE' | sha256sum -c",
			})
			return
		}
	}
}

func (f *file) git(args []string, line int, at script) {
	all := operands(args, "-C", "-c", "--git-dir", "--work-tree", "-b", "--branch", "--depth", "-o", "--origin", "-j", "--jobs", "--filter", "--reference")
	if len(all) == 0 {
		return
	}
	given := func(word string) bool { return commit.MatchString(word) || strings.Contains(word, "$") }
	switch all[0] {
	case "clone":
		for _, a := range args {
			if revision, ok := strings.CutPrefix(a, "--revision="); ok && given(revision) {
				return
			}
		}
		if len(all) > 1 && !strings.HasPrefix(all[1], "/") && !strings.HasPrefix(all[1], ".") {
			at.stage.pending = append(at.stage.pending, pendingDownload{
				at.first, line, gitCommit, "git clone " + all[1] + " takes what its branch has on that day",
				"Check out a commit after it, by its 40 digits",
			})
		}
	case "checkout", "reset", "switch", "fetch":
		if slices.ContainsFunc(args, given) {
			at.stage.settle(gitCommit)
		}
	}
}

// goVersions match versions that never move.
var goVersions = regexp.MustCompile(`^v\d+\.\d+\.\d+|^[0-9a-f]{12,40}$|\$|^none$`)

func (f *file) golang(args []string, line int, at script) {
	for _, a := range operands(args[1:]) {
		module, version, ok := strings.Cut(a, "@")
		if ok && strings.Contains(module, "/") && !goVersions.MatchString(version) {
			f.add(at.first, line, goVersion, "Name a version, such as @v1.2.3, or make it a tool of go.mod", "go %s %s takes the version of the day", args[0], a)
		}
	}
}
