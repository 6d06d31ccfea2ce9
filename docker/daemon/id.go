package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/client"
)

// ID identifies the daemon itself, whatever its address: by the name that it gave
// itself and, since one before Docker 25 takes that from a file of the machine's,
// by the folder with its data. It is asked for once.
func (c *Client) ID(ctx context.Context) (string, error) {
	c.idLock.Lock()
	defer c.idLock.Unlock()
	if c.id == "" {
		r, err := c.api.Info(ctx)
		if err != nil {
			return "", explain(err, "asking the daemon who it is")
		}
		c.id = r.ID + " " + r.DockerRootDir
	}
	return c.id, nil
}

// othersTimeout is how long another daemon than the person's own may take to answer.
const othersTimeout = 3 * time.Second

// ConnectTo reaches the daemon at an address that Host returned before. Keys for
// TLS are those of the environment.
func ConnectTo(ctx context.Context, address string) (*Client, error) {
	api, err := client.NewClientWithOpts(client.WithTLSClientConfigFromEnv(), client.WithHost(address), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	ctx, cancel := context.WithTimeout(ctx, othersTimeout)
	defer cancel()
	ping, err := api.Ping(ctx)
	if err != nil {
		api.Close()
		return nil, fmt.Errorf("%w: no daemon answers at %s: %w", ErrUnavailable, address, err)
	}
	api.NegotiateAPIVersionPing(ping)
	return &Client{api: api}, nil
}
