package engine

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// A Failure is what a build ended with, as a person wants to know it: which step, its
// place in the Dockerfile, what it printed, and one sentence.
type Failure struct {
	Step     string // as BuildKit names it; empty if no step failed
	Output   []string
	Sentence string
	Line     int // of the Dockerfile, if Step is empty; 0 if it isn't known
}

var (
	// A line of Dagger's log: the number of a piece of work, its depth, and a text.
	logLine = regexp.MustCompile(`^(\d+) *: (?:[┆│] )*(.*)$`)
	// What such a piece printed, with the time since its beginning.
	logOutput = regexp.MustCompile(`^\[[0-9.hms]+\] \| ?(.*)$`)
	// Its end.
	logFailed = regexp.MustCompile(`^(.*) ERROR \[[0-9.hms]+\]$`)
	// A step of BuildKit's: stage, number of how many, and instruction.
	buildStep = regexp.MustCompile(`^\[(?:(\S+) )? *\d+/\d+\] (.*)$`)
	// Where in Dagger's traces, which nobody keeps, an error is.
	traceParent = regexp.MustCompile(` \[traceparent:[0-9a-f-]+\]`)

	// What runc says of a command that it couldn't start, as the command's output.
	notStarted = regexp.MustCompile(`(?m)^\d+ *: (?:[┆│] )*\[[0-9.hms]+\] \| (runc run failed: .*)$`)

	exitCode  = regexp.MustCompile(`did not complete successfully: exit code: (\d+)$`)
	parseLine = regexp.MustCompile(`^dockerfile parse error on line (\d+): `)
)

// ExplainCommand finds in a session's log why its last command couldn't be started, where
// err, which Dagger gave, doesn't say.
func ExplainCommand(err error, log string) error {
	if all := notStarted.FindAllStringSubmatch(log, -1); len(all) > 0 {
		return errors.New(all[len(all)-1][1])
	}
	return errors.New(strings.TrimSpace(traceParent.ReplaceAllString(err.Error(), "")))
}

// ExplainFailure finds in the log of a build why it failed with err.
func ExplainFailure(err error, log string) Failure {
	f := Failure{Sentence: traceParent.ReplaceAllString(err.Error(), "")}
	names, output := map[string]string{}, map[string][]string{}
	var failed string // number of the step whose error is the build's
	for line := range strings.Lines(log) {
		parts := logLine.FindStringSubmatch(strings.TrimRight(line, "\r\n"))
		if parts == nil {
			continue
		}
		number, text := parts[1], parts[2]
		if out := logOutput.FindStringSubmatch(text); out != nil {
			output[number] = append(output[number], out[1])
		} else if why, ok := strings.CutPrefix(text, "! "); ok {
			// Parallel steps, which are cancelled, fail for another reason.
			if buildStep.MatchString(names[number]) && strings.Contains(f.Sentence, why) {
				failed = number
			}
		} else if end := logFailed.FindStringSubmatch(text); end != nil {
			names[number] = end[1]
		}
	}
	if failed != "" {
		f.Step, f.Output = names[failed], output[failed]
		if code := exitCode.FindStringSubmatch(f.Sentence); code != nil {
			f.Sentence = "The step ended with exit code " + code[1]
		}
	} else if at := parseLine.FindStringSubmatch(f.Sentence); at != nil {
		f.Line, _ = strconv.Atoi(at[1])
	}
	return f
}

// Error returns the failure as an error that shows it, with its place in the Dockerfile,
// of which name is the path and text the content, if it can be found there.
func (f Failure) Error(name, text string) error {
	var out strings.Builder
	fmt.Fprintf(&out, "building %s failed\n", name)
	if f.Step != "" {
		fmt.Fprintf(&out, " > %s:\n", shorten(f.Step))
		for _, line := range f.Output {
			fmt.Fprintf(&out, "   %s\n", line)
		}
		parts := buildStep.FindStringSubmatch(f.Step)
		if in, ok := findStep(instructions(text), parts[1], parts[2]); ok {
			out.WriteString(excerpt(name, text, in.first, in.last))
		}
	} else if f.Line > 0 {
		out.WriteString(excerpt(name, text, f.Line, f.Line))
	}
	out.WriteString(f.Sentence)
	return errors.New(out.String())
}

// shorten cuts what is long: it stands in the Dockerfile, too.
func shorten(step string) string {
	const most = 120
	if runes := []rune(step); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return step
}
