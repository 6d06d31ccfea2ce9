package debian

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// A paragraph is one stanza of Debian's control format (deb822(5)): fields by
// name. Lines of a value that goes on are joined by newlines, each without its
// first blank.
type paragraph map[string]string

// eachParagraph calls do with every paragraph that r has.
func eachParagraph(r *bufio.Reader, do func(paragraph) error) error {
	p := paragraph{}
	field := ""
	for {
		line, err := r.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		atEnd := err != nil
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.TrimSpace(line) == "":
			if len(p) > 0 {
				if err := do(p); err != nil {
					return err
				}
				p, field = paragraph{}, ""
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if field == "" {
				return fmt.Errorf("%.60q goes on with no field before it", line)
			}
			p[field] += "\n" + line[1:]
		default:
			name, value, found := strings.Cut(line, ":")
			if !found {
				return fmt.Errorf("%.60q is no field", line)
			}
			if _, twice := p[name]; twice {
				return fmt.Errorf("field %.60q is there twice", name)
			}
			field, p[name] = name, strings.TrimSpace(value)
		}
		if atEnd {
			if len(p) > 0 {
				return do(p)
			}
			return nil
		}
	}
}
