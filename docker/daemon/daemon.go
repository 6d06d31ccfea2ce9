// Package daemon speaks to the Docker Engine API. It is the one package that
// imports Docker's client and types (frozen upstream at v28.5.2), so that
// another client replaces it here and nowhere else: what goes in and out are
// the plain values below. It decides nothing: no policy, no output. Of files it
// reads Docker's own configuration alone, and writes none.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/trouble"
)

// The labels on everything that Berth makes in Docker.
const (
	LabelRole   = "dev.berth.role"   // what it is for: engine, run, smoke, …
	LabelOwner  = "dev.berth.owner"  // uid of the person it belongs to
	LabelLaunch = "dev.berth.launch" // id of one launch
	LabelUser   = "dev.berth.user"   // name of the person that a launch is for, to be shown to others
	LabelGPUs   = "dev.berth.gpus"   // GPUs of a launch, to be shown to others: "all", or as in -g
	LabelClaim  = "dev.berth.claim"  // name of the record of the process that made it
	LabelInputs = "dev.berth.inputs" // on images: hash of all that they were made from
)

// ErrUnavailable is in the chain of every error that says that Docker can't be
// used from here: not running, not permitted, or not understood.
var ErrUnavailable = errors.New("can't use Docker")

// ErrNotFound is in the chain of errors about an image, container or volume
// that the daemon doesn't have.
var ErrNotFound = errors.New("not in Docker")

// ErrConflict is in the chain of errors about a name that is taken, or a thing
// that is in use.
var ErrConflict = errors.New("conflict in Docker")

// A Client is a connection to one Docker Engine.
type Client struct {
	api *client.Client

	idLock sync.Mutex
	id     string // of the daemon; "" until it is asked for
}

// Connect reaches the daemon that the docker command would (DOCKER_HOST and its
// relatives, or the context that is in use) and agrees on an API version with it.
// Its errors have advice and wrap ErrUnavailable.
func Connect(ctx context.Context) (*Client, error) { return connect(ctx, pingTimeout) }

// pingTimeout is how long a daemon may take for its first answer. A healthy one
// takes milliseconds.
const pingTimeout = 10 * time.Second

func connect(ctx context.Context, timeout time.Duration) (*Client, error) {
	chosen, err := contextOptions()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	api, err := client.NewClientWithOpts(append([]client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}, chosen...)...)
	if err != nil {
		return nil, advice.About(fmt.Errorf("%w: its settings in the environment (DOCKER_HOST, DOCKER_TLS_VERIFY, …) make no sense: %w",
			ErrUnavailable, err), trouble.DockerSettings)
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ping, err := api.Ping(limited)
	if err != nil {
		api.Close()
		if ctx.Err() == nil && limited.Err() != nil {
			return nil, advice.About(fmt.Errorf("%w: the daemon at %s takes connections, but gave no answer within %s: %w",
				ErrUnavailable, api.DaemonHost(), timeout, err), trouble.DockerSilent)
		}
		return nil, explainUnavailable(api.DaemonHost(), err)
	}
	// Now, not with the first request: two at once would race for it.
	api.NegotiateAPIVersionPing(ping)
	// Negotiation lets DOCKER_API_VERSION win.
	if versions.GreaterThan(api.ClientVersion(), ping.APIVersion) {
		api.Close()
		return nil, explainUnavailable(api.DaemonHost(),
			fmt.Errorf("client version %s is too new. Maximum supported API version is %s", api.ClientVersion(), ping.APIVersion))
	}
	return &Client{api: api}, nil
}

// explainUnavailable adds to the first failed call to a daemon what can be done about it.
func explainUnavailable(host string, err error) error {
	switch text := err.Error(); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, os.ErrPermission), strings.Contains(text, "permission denied"):
		return advice.About(fmt.Errorf("%w: no permission on %s: %w", ErrUnavailable, host, err), trouble.DockerPermission)
	case strings.Contains(text, "is too new"), strings.Contains(text, "is too old"):
		return advice.About(fmt.Errorf("%w: the API version that DOCKER_API_VERSION asks for isn't the daemon's: %w", ErrUnavailable, err),
			trouble.DockerVersionAsked)
	default:
		return advice.About(fmt.Errorf("%w: no daemon answers at %s: %w", ErrUnavailable, host, err), trouble.DockerStopped)
	}
}

// Close ends the connection.
func (c *Client) Close() error { return c.api.Close() }

// APIVersion is the version that both sides agreed on, such as "1.41".
func (c *Client) APIVersion() string { return c.api.ClientVersion() }

// Host is the daemon's address, such as "unix:///var/run/docker.sock".
func (c *Client) Host() string { return c.api.DaemonHost() }

// explain wraps a client error with what was tried, and with the sentinel that
// callers branch on.
func explain(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	tried := fmt.Sprintf(format, args...)
	switch {
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("%s: %w: %w", tried, ErrUnavailable, err)
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", tried, ErrNotFound, err)
	case errdefs.IsConflict(err):
		return fmt.Errorf("%s: %w: %w", tried, ErrConflict, err)
	default:
		return fmt.Errorf("%s: %w", tried, err)
	}
}

func labelled(labels []string) filters.Args {
	f := filters.NewArgs()
	for _, l := range labels {
		f.Add("label", l)
	}
	return f
}
