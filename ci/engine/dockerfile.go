package engine

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// An instruction is one of a Dockerfile's, with the lines that it stands on.
type instruction struct {
	stage       string // the name of its stage, or BuildKit's for one without
	text        string // on one line, as it was written
	first, last int    // lines, from 1
}

// fromStage matches the beginning of a stage.
var fromStage = regexp.MustCompile(`(?i)^FROM\s+(?:--\S+\s+)*\S+(?:\s+AS\s+(\S+))?`)

// heredoc matches the beginning of a text in an instruction that ends with a line of
// that word.
var heredoc = regexp.MustCompile(`<<-?["']?([A-Za-z_][A-Za-z0-9_]*)["']?`)

// instructions finds where the instructions of a Dockerfile begin and end. It is no
// parser: what BuildKit refuses never comes to a step that fails.
func instructions(dockerfile string) []instruction {
	lines := strings.Split(strings.ReplaceAll(dockerfile, "\r\n", "\n"), "\n")
	escape := `\`
	var all []instruction
	stages := 0
	stage := ""
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "#") || line == "" {
			if len(all) == 0 && strings.Contains(line, "escape=`") {
				escape = "`"
			}
			continue
		}
		in := instruction{first: i + 1}
		var words []string
		for ; i < len(lines); i++ {
			line := strings.TrimSpace(lines[i])
			if len(words) > 0 && (strings.HasPrefix(line, "#") || line == "") {
				continue // comments and empty lines don't end an instruction
			}
			text, goesOn := strings.CutSuffix(line, escape)
			words = append(words, text)
			if !goesOn {
				break
			}
		}
		in.text = strings.Join(words, "")
		for _, end := range heredoc.FindAllStringSubmatch(in.text, -1) {
			for i++; i < len(lines) && strings.TrimLeft(lines[i], "\t") != end[1]; i++ {
			}
		}
		in.last = min(i+1, len(lines))
		if from := fromStage.FindStringSubmatch(in.text); from != nil {
			stage = from[1]
			if stage == "" {
				stage = fmt.Sprintf("stage-%d", stages)
			}
			stages++
		}
		in.stage = strings.ToLower(stage)
		all = append(all, in)
	}
	return all
}

// variable matches what BuildKit replaces in the name of a step.
var variable = regexp.MustCompile(`\$(?:\{[^}]*\}|[A-Za-z_][A-Za-z0-9_]*)`)

// findStep returns the instruction that a step of BuildKit's was made of, which is
// named with the same words, but other white space, fewer escapes, and the values of
// some variables. It reports false if none or several are it.
func findStep(all []instruction, stage, step string) (found instruction, ok bool) {
	// After the beginning of a text of several lines comes a summary of it.
	step = heredocSummary.ReplaceAllString(step, "$1")
	letters := onlyLetters(step)
	for _, in := range all {
		if stage != "" && in.stage != strings.ToLower(stage) {
			continue
		}
		var pattern strings.Builder
		rest := in.text
		for _, at := range variable.FindAllStringIndex(in.text, -1) {
			pattern.WriteString(onlyLetters(in.text[len(in.text)-len(rest):at[0]]) + ".*")
			rest = in.text[at[1]:]
		}
		pattern.WriteString(onlyLetters(rest))
		if same, err := regexp.MatchString("(?i)^(?:"+pattern.String()+")$", letters); err != nil || !same {
			continue
		}
		if ok {
			return instruction{}, false
		}
		found, ok = in, true
	}
	return found, ok
}

var heredocSummary = regexp.MustCompile(`(<<.*) \(.*\)$`)

// onlyLetters drops everything but letters and digits, which also leaves nothing
// that means something in a pattern.
func onlyLetters(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, s)
}

// excerpt shows lines of a file as BuildKit does, with two around them.
func excerpt(name, text string, first, last int) string {
	const around = 2
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	var out strings.Builder
	fmt.Fprintf(&out, "%s:%d\n", name, first)
	for n := max(1, first-around); n <= min(len(lines), last+around); n++ {
		mark := "   "
		if first <= n && n <= last {
			mark = ">>>"
		}
		out.WriteString(strings.TrimRight(fmt.Sprintf("%4d | %s %s", n, mark, lines[n-1]), "\r ") + "\n")
	}
	return out.String()
}
