package daemon

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/client"
	"github.com/docker/go-connections/tlsconfig"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// contextOptions returns how to reach the daemon of the context that the docker
// command would use: the one that DOCKER_CONTEXT names or, without it, docker
// context use has chosen. There are none where DOCKER_HOST is set, which wins.
func contextOptions() ([]client.Opt, error) {
	if os.Getenv("DOCKER_HOST") != "" {
		return nil, nil
	}
	folder := os.Getenv("DOCKER_CONFIG")
	if folder == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, nil // and so no configuration
		}
		folder = filepath.Join(home, ".docker")
	}
	name := os.Getenv("DOCKER_CONTEXT")
	if name == "" {
		var config struct {
			CurrentContext string `json:"currentContext"`
		}
		if err := readJSON(filepath.Join(folder, "config.json"), &config); err != nil && !errors.Is(err, fs.ErrNotExist) &&
			!errors.Is(err, fs.ErrPermission) {
			return nil, advice.About(fmt.Errorf("reading Docker's configuration: %w", err), trouble.DockerSettings)
		}
		name = config.CurrentContext
	}
	if name == "" || name == "default" {
		return nil, nil
	}
	id := fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := readJSON(filepath.Join(folder, "contexts", "meta", id, "meta.json"), &meta); err != nil {
		return nil, advice.About(fmt.Errorf("reading the Docker context %q: %w", name, err), trouble.DockerSettings)
	}
	endpoint := meta.Endpoints["docker"]
	host := endpoint.Host
	if host == "" {
		return nil, nil
	}
	if strings.HasPrefix(host, "ssh://") {
		return nil, advice.About(fmt.Errorf("the Docker context %q reaches its daemon by ssh, at %s, which Berth doesn't", name,
			strings.TrimPrefix(host, "ssh://")), trouble.DockerSSH)
	}
	var options []client.Opt
	if !strings.HasPrefix(host, "unix://") { // on a socket, docker speaks no TLS either
		config, err := contextTLS(filepath.Join(folder, "contexts", "tls", id, "docker"), endpoint.SkipTLSVerify)
		if err != nil {
			return nil, advice.About(fmt.Errorf("reading the certificates of the Docker context %q: %w", name, err), trouble.DockerSettings)
		}
		if config != nil {
			options = append(options, client.WithHTTPClient(&http.Client{
				Transport: &http.Transport{TLSClientConfig: config}, CheckRedirect: client.CheckRedirect,
			}))
		}
	}
	return append(options, client.WithHost(host)), nil // last: it sets up the transport that is there
}

// contextTLS returns how to speak TLS with the daemon of a context, by the files that docker
// context create wrote into a folder, any of which may be missing; nil if that is to be
// without TLS.
func contextTLS(folder string, skipVerify bool) (*tls.Config, error) {
	existing := func(name string) string {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return ""
		}
		return path
	}
	o := tlsconfig.Options{
		CAFile: existing("ca.pem"), CertFile: existing("cert.pem"), KeyFile: existing("key.pem"),
		ExclusiveRootPools: true, InsecureSkipVerify: skipVerify,
	}
	if o.CAFile == "" && o.CertFile == "" && o.KeyFile == "" && !skipVerify {
		return nil, nil
	}
	if o.CertFile == "" || o.KeyFile == "" { // one without the other is no use
		o.CertFile, o.KeyFile = "", ""
	}
	return tlsconfig.Client(o)
}

func readJSON(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
