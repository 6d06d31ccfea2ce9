package daemon

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// config makes a folder of Docker's with one context.
func config(t *testing.T, current, name, host string, skipVerify bool) {
	folder := t.TempDir()
	meta := filepath.Join(folder, "contexts", "meta", fmt.Sprintf("%x", sha256.Sum256([]byte(name))))
	require.NoError(t, os.MkdirAll(meta, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(meta, "meta.json"),
		fmt.Appendf(nil, `{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":%t}}}`, name, host, skipVerify), 0o644))
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

	config(t, "lab", "lab", host, false)
	d, err := Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	assert.Equal(t, host, d.Host())
	assert.Equal(t, "1.44", d.APIVersion(), "agreed on before the first request")

	config(t, "default", "lab", host, false)
	t.Setenv("DOCKER_CONTEXT", "lab")
	d, err = Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	assert.Equal(t, host, d.Host(), "DOCKER_CONTEXT wins over the configuration")

	config(t, "gone", "lab", "tcp://127.0.0.1:1", false)
	t.Setenv("DOCKER_HOST", host)
	d, err = Connect(t.Context())
	require.NoError(t, err)
	defer d.Close()
	assert.Equal(t, host, d.Host(), "DOCKER_HOST wins over both")
}

// keyPair makes a certificate of a client, signed by itself, and its key, as PEM.
func keyPair(t *testing.T) (cert, key []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// TestContextsWithTLS reaches a daemon as docker does, whichever of its three files a
// context has (docker context create --docker host=…,ca=…,skip-tls-verify=…).
func TestContextsWithTLS(t *testing.T) {
	var clients atomic.Int32 // certificates that the last request came with
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.44")
		if r.TLS != nil {
			clients.Store(int32(len(r.TLS.PeerCertificates)))
		}
	})
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	cert, key := keyPair(t)
	type files map[string][]byte
	for name, c := range map[string]struct {
		files   files
		skip    bool
		clients int32
		err     string
	}{
		"all three":               {files: files{"ca.pem": ca, "cert.pem": cert, "key.pem": key}, clients: 1},
		"a CA alone":              {files: files{"ca.pem": ca}},
		"a CA and half of a pair": {files: files{"ca.pem": ca, "cert.pem": cert}},
		"unverified":              {skip: true},
		"unverified, with a pair": {files: files{"ca.pem": cert, "cert.pem": cert, "key.pem": key}, skip: true, clients: 1},
		"another CA":              {files: files{"ca.pem": cert}, err: "certificate signed by unknown authority"},
		"a pair alone":            {files: files{"cert.pem": cert, "key.pem": key}, err: "certificate signed by unknown authority"},
		"nonsense":                {files: files{"ca.pem": []byte("nonsense")}, err: `reading the certificates of the Docker context "lab": `},
		"nothing":                 {err: "HTTP request to an HTTPS server"},
	} {
		t.Run(name, func(t *testing.T) {
			config(t, "lab", "lab", "tcp://"+server.Listener.Addr().String(), c.skip)
			folder := filepath.Join(os.Getenv("DOCKER_CONFIG"), "contexts", "tls", fmt.Sprintf("%x", sha256.Sum256([]byte("lab"))), "docker")
			require.NoError(t, os.MkdirAll(folder, 0o755))
			for name, text := range c.files {
				require.NoError(t, os.WriteFile(filepath.Join(folder, name), text, 0o600))
			}
			d, err := Connect(t.Context())
			if c.err != "" {
				assert.ErrorIs(t, err, ErrUnavailable)
				assert.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			defer d.Close()
			assert.Equal(t, "1.44", d.APIVersion())
			assert.Equal(t, c.clients, clients.Load())
		})
	}

	t.Run("a socket", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "docker.sock")
		l, err := net.Listen("unix", socket)
		require.NoError(t, err)
		local := &http.Server{Handler: handler}
		go local.Serve(l)
		defer local.Close()
		config(t, "lab", "lab", "unix://"+socket, true)
		d, err := Connect(t.Context())
		require.NoError(t, err)
		defer d.Close()
	})
}

func TestContextsThatCannotBeUsed(t *testing.T) {
	config(t, "gone", "lab", "tcp://127.0.0.1:1", false)
	_, err := Connect(t.Context())
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, "reading the Docker context \"gone\": ")
	assert.Same(t, trouble.DockerSettings, advice.Row(err))

	config(t, "", "lab", "tcp://127.0.0.1:1", false)
	require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte("{"), 0o644))
	_, err = Connect(t.Context())
	assert.ErrorContains(t, err, "config.json: unexpected end of JSON input")
	assert.Same(t, trouble.DockerSettings, advice.Row(err))

	config(t, "far", "far", "ssh://alice@far.example", false)
	_, err = Connect(t.Context())
	assert.ErrorIs(t, err, ErrUnavailable)
	assert.ErrorContains(t, err, `"far" reaches its daemon by ssh, at alice@far.example`)
	assert.Same(t, trouble.DockerSSH, advice.Row(err))
}
