package lint

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An Image is one of a registry that a Dockerfile takes something from.
type Image struct {
	Where string // the words before it, such as FROM
	Name  string // its reference, with variables replaced; "" if one has no value in the file
	Text  string // its reference as it stands there
	Line  int    // on which it stands, from 1

	column int // its first byte on that line, from 0; -1 if it doesn't stand on one line
}

// Pinned reports whether it has a digest.
func (i Image) Pinned() bool { return pinned(i.Name) }

// Images lists the images that a Dockerfile's instructions take something from, in the order
// of the file: those of FROM, COPY --from and RUN --mount=from, without stages. A file that
// BuildKit's parser refuses has none.
func Images(dockerfile []byte) []Image {
	f := &file{text: string(dockerfile), lines: strings.Split(string(dockerfile), "\n"), quick: true}
	f.dockerfile()
	return f.images
}

// ReplaceImages writes other references in the places of images. It fails if one of them
// doesn't stand on one line.
func ReplaceImages(dockerfile []byte, images []Image, with func(Image) string) ([]byte, error) {
	lines := strings.Split(string(dockerfile), "\n")
	// From the end, so that the places before it stay where they are.
	last := slices.SortedFunc(slices.Values(images), func(a, b Image) int { return cmp.Or(cmp.Compare(b.Line, a.Line), cmp.Compare(b.column, a.column)) })
	for _, i := range last {
		if i.column < 0 {
			return nil, fmt.Errorf("line %d: %s %s doesn't stand on one line. Write it on one", i.Line, i.Where, i.Text)
		}
		line := lines[i.Line-1]
		lines[i.Line-1] = line[:i.column] + with(i) + line[i.column+len(i.Text):]
	}
	return []byte(strings.Join(lines, "\n")), nil
}

// A Move is a tag that has another image than the one whose digest a Dockerfile has.
type Move struct{ Name, From, To string } // without a digest, and the digests

func (m Move) String() string { return fmt.Sprintf("%s %s -> %s", m.Name, m.From, m.To) }

// MoveDigests writes the digests that tags have now into a Dockerfile, wherever in it they
// stand: also as values of ARG. It fails if it can't tell which digest is a tag's.
func MoveDigests(dockerfile []byte, images []Image, moves []Move) ([]byte, error) {
	text := string(dockerfile)
	for _, m := range moves {
		// Not as the end of a longer name.
		whole := regexp.MustCompile(`(^|[^\w./:-])` + regexp.QuoteMeta(m.Name+"@"+m.From))
		if whole.MatchString(text) {
			text = whole.ReplaceAllString(text, "${1}"+m.Name+"@"+m.To)
			continue
		}
		// The name is put together from variables, so the digest has to be enough.
		for _, i := range images {
			if other, digest, _ := strings.Cut(i.Name, "@"); digest == m.From && other != m.Name {
				return nil, fmt.Errorf("%s and %s have the same digest: write %s of %s yourself", other, m.Name, m.To, m.Name)
			}
		}
		if !strings.Contains(text, m.From) {
			return nil, fmt.Errorf("the digest of %s is put together from variables. Write it in one: %s", m.Name, m.To)
		}
		text = strings.ReplaceAll(text, m.From, m.To)
	}
	return []byte(text), nil
}
