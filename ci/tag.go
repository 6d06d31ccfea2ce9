package ci

import (
	"fmt"

	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/berthdev/berth/internal/usage"
)

// checkTag returns what a person typed as the name of an image with its tag
// spelled out: "35" may be the beginning of an ID, "35:latest" can't. It
// refuses what Docker (whose grammar the first of the two parsers has) or the
// library that writes the image would refuse only after the build.
func checkTag(tag string) (string, error) {
	bad := func(err error) (string, error) {
		return "", fmt.Errorf("-t: %w: %q can't be the tag of an image: %w. For example: -t=demo-cnn:mine", usage.Err, tag, err)
	}
	named, err := reference.ParseNormalizedNamed(tag)
	if err != nil {
		return bad(err)
	}
	if _, ok := named.(reference.Digested); ok {
		return bad(fmt.Errorf("a digest follows from the content"))
	}
	tagged := reference.FamiliarString(reference.TagNameOnly(named))
	if _, err := name.NewTag(tagged); err != nil {
		return bad(err)
	}
	return tagged, nil
}
