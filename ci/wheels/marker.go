package wheels

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"deps.dev/util/semver"
)

// An environment is what a marker is evaluated in: the values of its variables, and
// those lists that PEP 751 adds to them.
type environment struct {
	values map[string]string
	lists  map[string][]string
}

// maxDepth is how deep parentheses may be nested.
const maxDepth = 100

// evaluate returns whether an environment marker holds
// (https://packaging.python.org/en/latest/specifications/dependency-specifiers/), as
// Python's own packaging has it. The empty marker does.
func (e environment) evaluate(marker string) (bool, error) {
	if strings.TrimSpace(marker) == "" {
		return true, nil
	}
	p := markerParser{environment: e}
	for rest := marker; ; {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			break
		}
		word := markerWord.FindString(rest)
		if word == "" {
			return false, fmt.Errorf("the marker %q makes no sense at %q", marker, rest)
		}
		p.words = append(p.words, word)
		rest = rest[len(word):]
	}
	holds, err := p.or(0)
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("it should end before %s", p.words[0])
	}
	if err != nil {
		return false, fmt.Errorf("the marker %q makes no sense: %w", marker, err)
	}
	return holds, nil
}

// markerWord matches a word at the beginning of the rest of a marker.
var markerWord = regexp.MustCompile(`^(?:'[^']*'|"[^"]*"|\(|\)|===|==|~=|!=|<=|>=|<|>|[a-zA-Z_][a-zA-Z0-9_.]*)`)

// A markerParser evaluates while it parses.
type markerParser struct {
	environment
	words []string
}

func (p *markerParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

// next takes a word off.
func (p *markerParser) next() string {
	word := p.peek()
	if word != "" {
		p.words = p.words[1:]
	}
	return word
}

func (p *markerParser) or(depth int) (bool, error) {
	holds, err := p.and(depth)
	for err == nil && p.peek() == "or" {
		p.next()
		var other bool
		other, err = p.and(depth)
		holds = holds || other
	}
	return holds, err
}

func (p *markerParser) and(depth int) (bool, error) {
	holds, err := p.comparison(depth)
	for err == nil && p.peek() == "and" {
		p.next()
		var other bool
		other, err = p.comparison(depth)
		holds = holds && other
	}
	return holds, err
}

func (p *markerParser) comparison(depth int) (bool, error) {
	if p.peek() == "(" {
		if depth == maxDepth {
			return false, errors.New("its parentheses are nested too deep")
		}
		p.next()
		holds, err := p.or(depth + 1)
		if err == nil && p.next() != ")" {
			err = errors.New("a parenthesis isn't closed")
		}
		return holds, err
	}
	left, err := p.operand()
	if err != nil {
		return false, err
	}
	operator := p.next()
	if operator == "not" {
		if p.next() != "in" {
			return false, errors.New(`after "not" comes "in"`)
		}
		operator = "not in"
	}
	right, err := p.operand()
	if err != nil {
		return false, err
	}
	if left.variable == right.variable {
		return false, errors.New("it compares a variable with a text, or one with the other")
	}
	return compare(left, operator, right)
}

// An operand is a side of a comparison.
type operand struct {
	text     string
	list     []string // instead of the text, if it is one
	isList   bool
	variable bool
}

// aliases are old names of variables.
var aliases = map[string]string{
	"os.name": "os_name", "sys.platform": "sys_platform", "platform.version": "platform_version", "platform.machine": "platform_machine",
	"platform.python_implementation": "platform_python_implementation", "python_implementation": "platform_python_implementation",
}

func (p *markerParser) operand() (operand, error) {
	word := p.next()
	switch {
	case word == "":
		return operand{}, errors.New("it ends too early")
	case word[0] == '\'' || word[0] == '"':
		return operand{text: word[1 : len(word)-1]}, nil
	}
	if alias, ok := aliases[word]; ok {
		word = alias
	}
	if list, ok := p.lists[word]; ok {
		return operand{list: list, isList: true, variable: true}, nil
	}
	if value, ok := p.values[word]; ok {
		return operand{text: value, variable: true}, nil
	}
	if word == "platform_release" || word == "platform_version" {
		return operand{}, fmt.Errorf("%s is the kernel's, and known only where the image runs", word)
	}
	return operand{}, fmt.Errorf("there is no variable %q", word)
}

// compare compares versions where both sides are such, and texts otherwise.
func compare(left operand, operator string, right operand) (bool, error) {
	if left.isList {
		return false, errors.New("a list stands on the right of \"in\" or \"not in\"")
	}
	if right.isList {
		has := slices.ContainsFunc(right.list, func(one string) bool { return normal(one) == normal(left.text) })
		switch operator {
		case "in":
			return has, nil
		case "not in":
			return !has, nil
		}
		return false, fmt.Errorf("a list can't be compared by %q", operator)
	}
	a, b := left.text, right.text
	switch operator {
	case "in":
		return strings.Contains(b, a), nil
	case "not in":
		return !strings.Contains(b, a), nil
	case "===":
		return strings.EqualFold(strings.TrimSpace(a), strings.TrimSpace(b)), nil
	}
	if versionLike.MatchString(a) && versionLike.MatchString(b) {
		c, cerr := semver.PyPI.ParseConstraint(operator + b)
		v, verr := semver.PyPI.Parse(a)
		if cerr == nil && verr == nil {
			return c.MatchVersionPrerelease(v), nil
		}
	}
	switch operator {
	case "==":
		return a == b, nil
	case "!=":
		return a != b, nil
	case "<":
		return a < b, nil
	case "<=":
		return a <= b, nil
	case ">":
		return a > b, nil
	case ">=":
		return a >= b, nil
	}
	return false, fmt.Errorf("%q and %q can't be compared by %q", a, b, operator)
}

// versionLike matches what begins as versions do: a comma would make two requirements
// of one.
var versionLike = regexp.MustCompile(`^\s*v?\d[^,\s]*\s*$`)

var separators = regexp.MustCompile(`[-_.]+`)

// normal is the name of a project as indexes have it (PEP 503).
func normal(name string) string { return separators.ReplaceAllString(strings.ToLower(name), "-") }
