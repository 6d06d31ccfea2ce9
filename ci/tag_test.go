package ci

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/usage"
)

func TestCheckTag(t *testing.T) {
	for typed, want := range map[string]string{
		"35":                         "35:latest",
		"demo":                       "demo:latest",
		"demo:1.0":                   "demo:1.0",
		"team/demo:x":                "team/demo:x",
		"localhost:5000/demo":        "localhost:5000/demo:latest",
		"docker.io/library/demo:1":   "demo:1",
		"example.com/a/b__c/d-e.f:X": "example.com/a/b__c/d-e.f:X",
	} {
		have, err := checkTag(typed)
		require.NoError(t, err, typed)
		assert.Equal(t, want, have)
	}
	for _, typed := range []string{
		"a b", "Upper", "a:b:c", "a:", ":a", "a//b", "../a", "-a", "a:-b", "-",
		"1234567890123456789012345678901234567890123456789012345678901234",
		"demo@sha256:1234567890123456789012345678901234567890123456789012345678901234",
		"demo:1@sha256:1234567890123456789012345678901234567890123456789012345678901234",
	} {
		_, err := checkTag(typed)
		require.ErrorIs(t, err, usage.Err, typed)
		assert.Equal(t, ExitUsage, ExitCode(err))
		assert.Contains(t, err.Error(), "-t: usage: ")
	}
}

// What checkTag returns it takes again, and so does the library that writes images.
func FuzzCheckTag(f *testing.F) {
	for _, typed := range []string{"35", "a:1", "localhost:5000/a", "[::1]:5000/a", "A/b", "docker.io/a", "index.docker.io/library/a", "a@sha256:00", "a b"} {
		f.Add(typed)
	}
	f.Fuzz(func(t *testing.T, typed string) {
		tag, err := checkTag(typed)
		if err != nil {
			assert.ErrorIs(t, err, usage.Err)
			return
		}
		again, err := checkTag(tag)
		require.NoError(t, err)
		assert.Equal(t, tag, again)
		ref, err := name.NewTag(tag)
		require.NoError(t, err)
		assert.NotEmpty(t, ref.TagStr())
	})
}
