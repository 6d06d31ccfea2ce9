// Package workflows makes the GitHub Actions workflows of a project, and the hook that
// guards the machine on which one of them runs: values in, text out. It reads and
// writes nothing; the package above it does.
package workflows

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// A Workflow is a file of .github/workflows, as far as Berth's own go. Its fields are
// GitHub's, and come in this order; keys of maps are sorted.
type Workflow struct {
	Name        string            `yaml:"name"`
	On          map[string]Filter `yaml:"on"` // by the name of the event
	Permissions map[string]string `yaml:"permissions"`
	Concurrency Concurrency       `yaml:"concurrency"`
	Jobs        map[string]Job    `yaml:"jobs"`
}

// A Filter says which events of a kind count: all of them, if it is empty.
type Filter struct {
	Branches []string `yaml:"branches,omitempty,flow"`
}

// Concurrency says which runs wait for each other, or take each other's place.
type Concurrency struct {
	Group            string `yaml:"group"`
	CancelInProgress string `yaml:"cancel-in-progress"`
}

// A Job runs its steps on one machine.
type Job struct {
	If             string   `yaml:"if,omitempty"`
	RunsOn         []string `yaml:"runs-on,flow"`
	TimeoutMinutes int      `yaml:"timeout-minutes"`
	Steps          []Step   `yaml:"steps"`
}

// A Step either uses an action or runs a script.
type Step struct {
	Name             string            `yaml:"name"`
	ID               string            `yaml:"id,omitempty"`
	If               string            `yaml:"if,omitempty"`
	Uses             Action            `yaml:"uses,omitempty"`
	With             map[string]any    `yaml:"with,omitempty"`
	Env              map[string]string `yaml:"env,omitempty"`
	WorkingDirectory string            `yaml:"working-directory,omitempty"`
	Run              string            `yaml:"run,omitempty"`
}

// An Action is pinned by the commit of a release, which is named for people: tags
// move, commits don't.
type Action struct{ Name, Commit, Version string }

// Ref is the action as GitHub looks it up.
func (a Action) Ref() string { return a.Name + "@" + a.Commit }

// MarshalYAML is the action's reference, with the release's name as a comment.
func (a Action) MarshalYAML() (any, error) {
	return &yaml.Node{Kind: yaml.ScalarNode, Value: a.Ref(), LineComment: a.Version}, nil
}

// YAML is the text of the workflow, below a header of comment lines. The library is
// the one that the module has already; its successor, v4, is one that actionlint
// doesn't compile with.
func (w Workflow) YAML(header string) ([]byte, error) {
	text := bytes.NewBufferString(header)
	e := yaml.NewEncoder(text)
	e.SetIndent(2)
	if err := e.Encode(w); err != nil {
		return nil, err
	}
	return text.Bytes(), e.Close()
}
