package download

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFile brings a file of which more or less is known.
func TestFile(t *testing.T) {
	content := []byte("what is served")
	var ranges []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	original := filepath.Join(t.TempDir(), "original")
	require.NoError(t, os.WriteFile(original, content, 0o600))
	known, err := FileAt(original)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		want   File
		before string // the part that is there
		ranges []string
		err    string
	}{
		"all known":                     {known, "", []string{""}, ""},
		"no size":                       {File{SHA256: known.SHA256}, "", []string{""}, ""},
		"nothing known":                 {File{}, "", []string{""}, ""},
		"goes on":                       {known, "what", []string{"bytes=4-"}, ""},
		"goes on without a size":        {File{SHA256: known.SHA256}, "what", []string{"bytes=4-"}, ""},
		"whole already, without a size": {File{SHA256: known.SHA256}, string(content), []string{"bytes=14-"}, ""},
		"whole, as the part is longer":  {File{SHA256: known.SHA256}, "more than what is served", []string{"bytes=24-", ""}, ""},
		"whole, as no sum is known":     {File{Size: known.Size}, "xxxx", []string{""}, ""},
		"whole, as the part was wrong":  {known, "xxxx", []string{"bytes=4-", ""}, ""},
		"another file":                  {File{Size: known.Size, SHA256: "00"}, "", []string{""}, "it sent another file"},
		"a file that is longer":         {File{Size: known.Size - 1}, "", []string{""}, "it sent 14 bytes of 13"},
		"a file that is shorter":        {File{Size: known.Size + 1}, "", []string{""}, "it sent 14 bytes of 15"},
		"an earlier part that is whole": {known, string(content), []string{""}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if c.before != "" {
				require.NoError(t, os.WriteFile(path, []byte(c.before), 0o600))
			}
			ranges = nil
			var told int64
			err := Getter{}.File(t.Context(), server.URL, path, c.want, func(n int64) { told += n })
			assert.Equal(t, c.ranges, ranges)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				assert.NoFileExists(t, path)
				assert.Zero(t, told)
				return
			}
			require.NoError(t, err)
			have, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, content, have)
		})
	}
}
