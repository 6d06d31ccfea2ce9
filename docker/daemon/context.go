package daemon

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/client"

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
		Endpoints map[string]struct{ Host string }
	}
	if err := readJSON(filepath.Join(folder, "contexts", "meta", id, "meta.json"), &meta); err != nil {
		return nil, advice.About(fmt.Errorf("reading the Docker context %q: %w", name, err), trouble.DockerSettings)
	}
	host := meta.Endpoints["docker"].Host
	if host == "" {
		return nil, nil
	}
	if strings.HasPrefix(host, "ssh://") {
		return nil, advice.About(fmt.Errorf("the Docker context %q reaches its daemon by ssh, at %s, which Berth doesn't", name,
			strings.TrimPrefix(host, "ssh://")), trouble.DockerSSH)
	}
	options := []client.Opt{client.WithHost(host)}
	keys := filepath.Join(folder, "contexts", "tls", id, "docker")
	if _, err := os.Stat(filepath.Join(keys, "cert.pem")); err == nil {
		options = append(options,
			client.WithTLSClientConfig(filepath.Join(keys, "ca.pem"), filepath.Join(keys, "cert.pem"), filepath.Join(keys, "key.pem")))
	}
	return options, nil
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
