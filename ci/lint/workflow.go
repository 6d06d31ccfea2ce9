package lint

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// expression matches those of GitHub, which a shell can't read.
var expression = regexp.MustCompile(`\$\{\{.*?\}\}`)

// workflow checks a workflow or an action of GitHub's.
func (f *file) workflow() {
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(f.text), &document); err != nil {
		f.add(1, 1, unreadable, "Nothing in it was checked", "it isn't YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	if len(document.Content) != 1 {
		return
	}
	root := document.Content[0]
	shell := shellOf(root)
	f.steps(field(field(root, "runs"), "steps"), shell) // of a composite action
	if image := field(field(root, "runs"), "image"); image != nil {
		if name, ok := strings.CutPrefix(image.Value, "docker://"); ok {
			f.workflowImage(image, name)
		}
	}
	for _, job := range values(field(root, "jobs")) {
		if uses := field(job, "uses"); uses != nil {
			f.uses(uses)
		}
		container := field(job, "container")
		if image := field(container, "image"); image != nil {
			container = image
		}
		f.workflowImage(container, "")
		for _, service := range values(field(job, "services")) {
			f.workflowImage(field(service, "image"), "")
		}
		inner := shell
		if s := shellOf(job); s != "" {
			inner = s
		}
		f.steps(field(job, "steps"), inner)
	}
}

// shellOf is the shell that a workflow or a job names for its steps.
func shellOf(node *yaml.Node) string {
	if s := field(field(field(node, "defaults"), "run"), "shell"); s != nil {
		return s.Value
	}
	return ""
}

// steps checks those of a job, which share what one of them checks.
func (f *file) steps(steps *yaml.Node, shell string) {
	if steps == nil || steps.Kind != yaml.SequenceNode {
		return
	}
	shared := &stage{env: variables{}, posix: true}
	for _, step := range steps.Content {
		if uses := field(step, "uses"); uses != nil {
			f.uses(uses)
		}
		run, named := field(step, "run"), shell
		if s := field(step, "shell"); s != nil {
			named = s.Value
		}
		name, _, _ := strings.Cut(named, " ")
		if run == nil || name != "" && !posix.MatchString(name) {
			continue
		}
		line := run.Line
		if run.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			line++ // the text begins below the mark
		}
		text := expression.ReplaceAllString(run.Value, "$$GITHUB_EXPRESSION")
		f.script(text, script{first: step.Line, line: line, stage: shared})
	}
	f.report(shared.pending)
}

// uses checks the action or the workflow that a step or a job uses.
func (f *file) uses(node *yaml.Node) {
	if image, ok := strings.CutPrefix(node.Value, "docker://"); ok {
		f.workflowImage(node, image)
		return
	}
	action, ref, ok := strings.Cut(node.Value, "@")
	if strings.HasPrefix(action, "./") || strings.Contains(node.Value, "${{") || commit.MatchString(ref) {
		return
	}
	if !ok {
		f.add(node.Line, node.Line, actionCommit, "Write "+action+"@COMMIT, by its 40 digits", "uses: %s names no commit", node.Value)
		return
	}
	found := f.add(node.Line, node.Line, actionCommit, "Write the commit's 40 digits instead of "+ref+"; lint -fix looks them up",
		"uses: %s names no commit", node.Value)
	if parts := strings.SplitN(action, "/", 3); len(parts) >= 2 {
		f.fix(found, pin{repository: parts[0] + "/" + parts[1], ref: ref, comment: true}, node.Value, f.only(node.Line, node.Value))
	}
}

// workflowImage checks the image that a node names, or, in what a node names, the image.
func (f *file) workflowImage(node *yaml.Node, image string) {
	if node == nil || node.Kind != yaml.ScalarNode {
		return
	}
	if image == "" {
		image = node.Value
	}
	if image == "" || strings.Contains(image, "${{") {
		return
	}
	f.image(node.Line, node.Line, f.only(node.Line, image), "the image", image, image)
}

// field is what a mapping has under a name, nil if nothing.
func field(node *yaml.Node, name string) *yaml.Node {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == name {
			return node.Content[i+1]
		}
	}
	return nil
}

// values are what a mapping has.
func values(node *yaml.Node) (all []*yaml.Node) {
	if node == nil || node.Kind != yaml.MappingNode {
		return nil
	}
	for i := 1; i < len(node.Content); i += 2 {
		all = append(all, node.Content[i])
	}
	return all
}
