package ptx

import (
	"fmt"
	"strings"
)

// A token is a word of the file: a name with its dots, a number, a string or a
// character.
type token struct {
	text string
	line int
}

// scan cuts a file into tokens, and leaves out comments (section "Comments").
func scan(text string) (tokens []token, err error) {
	line := 1
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '\n':
			line++
			i++
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case strings.HasPrefix(text[i:], "//"):
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case strings.HasPrefix(text[i:], "/*"):
			end := strings.Index(text[i:], "*/")
			if end < 0 {
				return nil, fmt.Errorf("PTX line %d: the comment has no end", line)
			}
			line += strings.Count(text[i:i+end], "\n")
			i += end + 2
		case c == '"':
			end := strings.IndexAny(text[i+1:], "\"\n")
			if end < 0 || text[i+1+end] != '"' {
				return nil, fmt.Errorf("PTX line %d: the string has no end", line)
			}
			tokens = append(tokens, token{text[i : i+end+2], line})
			i += end + 2
		case isWord(c):
			j := i + 1
			for j < len(text) && isWord(text[j]) && text[j] != '%' {
				j++
			}
			tokens = append(tokens, token{text[i:j], line})
			i = j
		case strings.IndexByte("(){}[]<>,;:+-@!", c) >= 0:
			tokens = append(tokens, token{text[i : i+1], line})
			i++
		default:
			return nil, fmt.Errorf("PTX line %d: the character %q isn't known", line, c)
		}
	}
	return tokens, nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isWord(c byte) bool {
	return isLetter(c) || c >= '0' && c <= '9' || c == '_' || c == '$' || c == '%' || c == '.'
}
