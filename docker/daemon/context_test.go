package daemon

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// config makes a folder of Docker's with one context.
func config(t *testing.T, current, name, host string) {
	folder := t.TempDir()
	meta := filepath.Join(folder, "contexts", "meta", fmt.Sprintf("%x", sha256.Sum256([]byte(name))))
	require.NoError(t, os.MkdirAll(meta, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(meta, "meta.json"),
		fmt.Appendf(nil, `{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name, host), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "config.json"), fmt.Appendf(nil, `{"auths":{},"currentContext":%q}`, current),
		0o644))
	t.Setenv("DOCKER_CONFIG", folder)
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("DOCKER_CONTEXT", "")
}

func TestConnectFollowsTheContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
	}))
	defer server.Close()
	host := "tcp://" + server.Listener.Addr().String()

	config(t, "lab", "lab", host)
	d, err := Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	assert.Equal(t, host, d.Host())
	assert.Equal(t, "1.44", d.APIVersion(), "agreed on before the first request")

	config(t, "default", "lab", host)
	t.Setenv("DOCKER_CONTEXT", "lab")
	d, err = Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	assert.Equal(t, host, d.Host(), "DOCKER_CONTEXT wins over the configuration")

	config(t, "gone", "lab", "tcp://127.0.0.1:1")
	t.Setenv("DOCKER_HOST", host)
	d, err = Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	assert.Equal(t, host, d.Host(), "DOCKER_HOST wins over both")
}

func TestContextsThatCannotBeUsed(t *testing.T) {
	config(t, "gone", "lab", "tcp://127.0.0.1:1")
	_, err := Connect(t.Context())
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "reading the Docker context \"gone\": ")
	assert.Same(t, trouble.DockerSettings, advice.Row(err))

	config(t, "", "lab", "tcp://127.0.0.1:1")
	require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte("{"), 0o644))
	_, err = Connect(t.Context())
	assert.ErrorContains(t, err, "config.json: unexpected end of JSON input")
	assert.Same(t, trouble.DockerSettings, advice.Row(err))

	config(t, "far", "far", "ssh://alice@far.example")
	_, err = Connect(t.Context())
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, `"far" reaches its daemon by ssh, at alice@far.example`)
	assert.Same(t, trouble.DockerSSH, advice.Row(err))
}
