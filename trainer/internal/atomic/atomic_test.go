package atomic

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWriteFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	put := func(text string, fail error) error {
		return WriteFile(name, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return errors.Join(err, fail)
		})
	}
	content := func() string {
		raw, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(raw)
	}
	require.NoError(t, put("one", nil))
	assert.Equal(t, "one", content())
	require.NoError(t, put("two", nil))
	assert.Equal(t, "two", content())

	failure := errors.New("out of ink")
	assert.ErrorIs(t, put("half of", failure), failure)
	assert.Equal(t, "two", content(), "a failed write changes nothing")
	assert.NoFileExists(t, name+".tmp")

	// What a killed process left is in nobody's way.
	require.NoError(t, os.WriteFile(name+".tmp", []byte("half of something longer"), 0o666))
	require.NoError(t, put("three", nil))
	assert.Equal(t, "three", content())

	nowhere := filepath.Join(filepath.Dir(name), "nowhere", "file")
	err := WriteFile(nowhere, func(io.Writer) error { return nil })
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, nowhere)
}

// TestRenameFails: a folder where the file should go.
func TestRenameFails(t *testing.T) {
	name := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(name, 0o777))
	assert.Error(t, WriteFile(name, func(io.Writer) error { return nil }))
	assert.DirExists(t, name)
	assert.NoFileExists(t, name+".tmp")
}
