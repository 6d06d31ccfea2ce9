package lint

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// fromInstruction is where most images are named.
const fromInstruction = "FROM"

// A stage is what is known at a place in a Dockerfile.
type stage struct {
	env     variables
	posix   bool // RUN goes to a POSIX shell or to bash
	pending []pendingDownload
}

// variables are those of ARG and ENV whose values the file itself gives.
type variables map[string]string

func (v variables) Get(name string) (string, bool) { value, ok := v[name]; return value, ok }
func (v variables) Keys() (names []string) {
	for name := range v {
		names = append(names, name)
	}
	return names
}

// dockerfile checks a Dockerfile.
func (f *file) dockerfile() {
	parsed, err := parser.Parse(strings.NewReader(f.text))
	if err != nil {
		line := 1
		if located := (*parser.LocationError)(nil); errors.As(err, &located) && len(located.Locations) > 0 && len(located.Locations[0]) > 0 {
			line = min(max(located.Locations[0][0].Start.Line, 1), len(f.lines))
		}
		f.add(line, line, unreadable, "Nothing in it was checked", "BuildKit's parser says: %s", strings.TrimSpace(err.Error()))
		return
	}
	if syntax, _, at, ok := parser.DetectSyntax([]byte(f.text)); ok && len(at) > 0 {
		line := at[0].Start.Line
		f.image(line, line, f.only(line, syntax), "# syntax =", syntax, syntax)
	}
	d := &dockerfileChecker{file: f, lex: shell.NewLex(parsed.EscapeToken), escape: parsed.EscapeToken, global: variables{}, taken: map[[2]int]bool{}}
	for _, node := range parsed.AST.Children {
		d.instruction(node, node)
	}
	d.endStage()
}

// A dockerfileChecker goes through a Dockerfile.
type dockerfileChecker struct {
	*file
	lex    *shell.Lex
	escape rune
	global variables       // of ARG before the first stage
	stages []string        // their names so far, in lower case; "" for one without
	stage  *stage          // nil before the first
	taken  map[[2]int]bool // lines and columns of the images so far
}

// instruction checks one; top is the node that has its place and its flags.
func (d *dockerfileChecker) instruction(node, top *parser.Node) {
	words := func() (all []string) {
		for n := node.Next; n != nil; n = n.Next {
			all = append(all, n.Value)
		}
		return all
	}
	switch strings.ToLower(node.Value) {
	case command.From:
		d.from(node)
	case command.Arg:
		for _, word := range words() {
			if name, value, ok := strings.Cut(word, "="); ok {
				d.set(name, value)
			} else if d.stage != nil && d.global[name] != "" {
				d.stage.env[name] = d.global[name]
			}
		}
	case command.Env:
		all := words() // name, value and separator, each a node
		for i := 0; i+1 < len(all); i += 3 {
			d.set(all[i], all[i+1])
		}
	case command.Shell:
		if all := words(); d.stage != nil && len(all) > 0 {
			d.stage.posix = posix.MatchString(all[0])
		}
	case command.Copy:
		for _, flag := range top.Flags {
			if from, ok := strings.CutPrefix(flag, "--from="); ok {
				d.used(top, "COPY --from", from)
			}
		}
	case command.Add:
		d.addition(top, words())
	case command.Run:
		d.run(node, top)
	case command.Onbuild:
		if node.Next != nil && len(node.Next.Children) == 1 {
			inner := node.Next.Children[0]
			placed := *inner
			placed.StartLine, placed.EndLine = top.StartLine, top.EndLine
			placed.Heredocs = top.Heredocs
			d.instruction(&placed, &placed)
		}
	}
}

// posix matches the names of shells that read what this package can.
var posix = regexp.MustCompile(`(^|/)(ba|da|a|z|k)?sh$`)

// set remembers the value of a variable, if all of it is known.
func (d *dockerfileChecker) set(name, value string) {
	env := d.global
	if d.stage != nil {
		env = d.stage.env
	}
	if expanded, ok := d.expand(value); ok {
		env[name] = expanded
	} else {
		delete(env, name)
	}
}

// expand replaces variables and quotes by values. It fails if one isn't known.
func (d *dockerfileChecker) expand(word string) (string, bool) {
	env := d.global
	if d.stage != nil {
		env = d.stage.env
	}
	result, err := d.lex.ProcessWordWithMatches(word, env)
	if err != nil || len(result.Unmatched) > 0 {
		return "", false
	}
	return result.Result, true
}

// from checks the beginning of a stage.
func (d *dockerfileChecker) from(node *parser.Node) {
	d.endStage()
	var words []string
	for n := node.Next; n != nil; n = n.Next {
		words = append(words, n.Value)
	}
	if len(words) == 0 {
		return
	}
	windows := d.escape == '`'
	d.stage = nil // FROM knows the arguments before the first stage alone
	image, known := d.expand(words[0])
	if image != "scratch" && !d.isStage(image) {
		line, column := d.takes(node, fromInstruction, image, words[0])
		if known && image != "" {
			d.image(node.StartLine, line, column, fromInstruction, image, words[0])
		}
	}
	name := ""
	if len(words) == 3 && strings.EqualFold(words[1], "as") {
		name = strings.ToLower(words[2])
	}
	d.stages = append(d.stages, name)
	d.stage = &stage{env: variables{}, posix: !windows}
}

// isStage reports whether an image is an earlier stage of the file. One whose name isn't
// known is none, though stages may be without one.
func (d *dockerfileChecker) isStage(image string) bool {
	return image != "" && slices.Contains(d.stages, strings.ToLower(image))
}

// takes records an image that something is taken from, and returns where it stands.
func (d *dockerfileChecker) takes(node *parser.Node, where, image, exact string) (line, column int) {
	line, column = d.place(node, where, exact)
	d.images = append(d.images, Image{Where: where, Name: image, Text: exact, Line: line, column: column})
	return line, column
}

// place is the line of an instruction and the byte of that line at which the reference of an
// image stands: the first that no other image has. The column is -1 if it doesn't stand on
// one line.
func (d *dockerfileChecker) place(node *parser.Node, where, word string) (line, column int) {
	for line := node.StartLine; line <= node.EndLine && line <= len(d.lines); line++ {
		text := d.lines[line-1]
		if line > node.StartLine && strings.HasPrefix(strings.TrimSpace(text), "#") {
			continue
		}
		for at := 0; ; at++ {
			next := strings.Index(text[at:], word)
			if next < 0 {
				break
			}
			at += next
			if place := [2]int{line, at}; standsAlone(text[:at], text[at+len(word):], where) && !d.taken[place] {
				d.taken[place] = true
				return line, at
			}
		}
	}
	return d.find(node, word), -1
}

// standsAlone reports whether what is between two parts of a line is a whole reference, and
// no part of another word.
func standsAlone(before, after, where string) bool {
	if where == fromInstruction {
		return (before == "" || strings.ContainsAny(before[len(before)-1:], " \t")) && (after == "" || strings.ContainsAny(after[:1], " \t\r"))
	}
	return strings.HasSuffix(before, "from=") && (after == "" || strings.ContainsAny(after[:1], " \t\r,\"'\\"))
}

// endStage reports the downloads of a stage that nothing in it checked.
func (d *dockerfileChecker) endStage() {
	if d.stage != nil {
		d.report(d.stage.pending)
	}
}

// used checks an image that files are taken from. A single word that is no stage may be
// a build context of that name.
func (d *dockerfileChecker) used(top *parser.Node, where, from string) {
	image, known := d.expand(from)
	if _, err := strconv.Atoi(image); err == nil || image == "scratch" || d.isStage(image) {
		return
	}
	line, column := d.takes(top, where, image, from)
	if known && strings.ContainsAny(image, ":/") {
		d.image(top.StartLine, line, column, where, image, from)
	}
}

// addition checks ADD.
func (d *dockerfileChecker) addition(top *parser.Node, words []string) {
	for _, flag := range top.Flags {
		if strings.HasPrefix(flag, "--checksum=") {
			return
		}
	}
	for _, source := range words[:max(len(words)-1, 0)] {
		url, known := d.expand(source)
		if !known {
			url = source
		}
		line := d.find(top, source)
		base, ref, _ := strings.Cut(url, "#")
		switch {
		case isRepository(base):
			ref, _, _ = strings.Cut(ref, ":")
			if !commit.MatchString(ref) && (known || !strings.Contains(ref, "$")) {
				d.add(top.StartLine, line, gitCommit, "Write "+base+"#COMMIT, by its 40 digits", "ADD %s names no commit", url)
			}
		case isRemote(url):
			d.add(top.StartLine, line, downloadChecksum, "Write ADD --checksum=sha256:…", "ADD %s has no checksum", url)
		}
	}
}

// isRemote reports whether a word is the URL of a file elsewhere.
func isRemote(word string) bool {
	for _, scheme := range []string{"http://", "https://", "ftp://"} {
		if rest, ok := strings.CutPrefix(strings.ToLower(word), scheme); ok {
			host, _, _ := strings.Cut(rest, "/")
			host, _, _ = strings.Cut(host, ":")
			return host != "localhost" && host != "127.0.0.1" && host != "0.0.0.0" && host != "[" // IPv6's loopback, too
		}
	}
	return false
}

// isRepository reports whether BuildKit takes a URL for a git repository.
func isRepository(url string) bool {
	return strings.HasPrefix(url, "git@") || strings.HasPrefix(url, "git://") || strings.HasPrefix(url, "ssh://") ||
		isRemote(url) && strings.HasSuffix(url, ".git")
}

// run checks RUN: the images that it mounts, and its commands.
func (d *dockerfileChecker) run(node, top *parser.Node) {
	for _, flag := range top.Flags {
		mount, ok := strings.CutPrefix(flag, "--mount=")
		for field := range strings.SplitSeq(mount, ",") {
			if from, is := strings.CutPrefix(field, "from="); ok && is {
				d.used(top, "RUN --mount=from", from)
			}
		}
	}
	if d.stage == nil || d.quick {
		return
	}
	place := script{dockerfile: true, first: top.StartLine, env: d.stage.env, stage: d.stage}
	if node.Attributes["json"] {
		var words []string
		for n := node.Next; n != nil; n = n.Next {
			words = append(words, n.Value)
		}
		place.line = top.StartLine
		// What ["sh", "-c", "…"] runs is a script.
		if len(words) == 3 && posix.MatchString(words[0]) && strings.HasPrefix(words[1], "-") && strings.HasSuffix(words[1], "c") {
			d.script(words[2], place)
			return
		}
		d.words(words, place.line, place)
		return
	}
	if !d.stage.posix || node.Next == nil {
		return
	}
	bodies := 0
	for _, h := range top.Heredocs {
		bodies += strings.Count(h.Content, "\n") + 1
	}
	head := top.EndLine - bodies // the last line before the heredocs
	place.line = top.StartLine
	// RUN <<EOF has no command of its own; RUN <<EOF cat has.
	fields := slices.DeleteFunc(strings.Fields(node.Next.Value), func(word string) bool { return strings.HasPrefix(word, "<<") })
	alone := len(fields) == 0
	if !alone {
		d.script(d.commandOf(top, head), place)
	}
	line := head + 1
	for _, h := range top.Heredocs {
		// Without a command, or with a shell, the text is a script; #! names its interpreter.
		first, _, _ := strings.Cut(h.Content, "\n")
		interpreter := strings.Fields(strings.TrimPrefix(first, "#!"))
		readable := !strings.HasPrefix(first, "#!") || len(interpreter) > 0 && posix.MatchString(interpreter[len(interpreter)-1])
		if h.FileDescriptor == 0 && readable && (alone || posix.MatchString(fields[0])) {
			place.line = line
			d.script(h.Content, place)
		}
		line += strings.Count(h.Content, "\n") + 1
	}
}

// commandOf is the text of RUN as it stands in the file, with what isn't the shell's
// blanked out, so that each command keeps its line. Below the line head are heredocs.
func (d *dockerfileChecker) commandOf(top *parser.Node, head int) string {
	lines := slices.Clone(d.lines[top.StartLine-1 : min(top.EndLine, len(d.lines))])
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		trimmed := strings.TrimSpace(line)
		if i > head-top.StartLine {
			lines[i] = line
			continue
		}
		if i > 0 && (trimmed == "" || strings.HasPrefix(trimmed, "#")) {
			lines[i] = "\\" // BuildKit skips it
			continue
		}
		line = strings.TrimRight(line, " \t")
		if d.escape != '\\' && strings.HasSuffix(line, string(d.escape)) {
			line = strings.TrimSuffix(line, string(d.escape)) + "\\"
		}
		lines[i] = line
	}
	text := strings.Join(lines, "\n")
	// Without the words before the command: ONBUILD, RUN and the flags.
	rest := text
	for {
		trimmed := strings.TrimLeft(rest, " \t\\\n")
		word, _, _ := strings.Cut(strings.Split(trimmed, "\n")[0], " ")
		if upper := strings.ToUpper(word); upper != "RUN" && upper != "ONBUILD" && !strings.HasPrefix(word, "--") {
			break
		}
		rest = trimmed[len(word):]
	}
	skipped := text[:len(text)-len(rest)]
	return strings.Repeat("\n", strings.Count(skipped, "\n")) + rest
}

// find is the line of an instruction on which a word stands, its first one if none.
func (d *dockerfileChecker) find(node *parser.Node, word string) int {
	for line := node.StartLine; line <= node.EndLine && line <= len(d.lines); line++ {
		if strings.Contains(d.lines[line-1], word) {
			return line
		}
	}
	return node.StartLine
}
