package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// An Image is what the daemon says of an image that it has.
type Image struct {
	ID      string            // "sha256:…", in Docker's classic store the digest of its configuration
	Tags    []string          // name:tag
	Digests []string          // name@digest, by which it is known as well
	Labels  map[string]string // of its configuration
	Layers  []string          // diff IDs, lowest first
	Size    int64             // bytes

	Entrypoint, Command []string // what a container of it runs
	Config              ImageConfig
}

// An ImageConfig is the rest of an image's configuration, as far as the daemon
// tells it.
type ImageConfig struct {
	Created             time.Time
	OS, Architecture    string
	User, WorkingDir    string
	StopSignal          string
	Env, Shell, OnBuild []string
	Volumes, Ports      []string // sorted
	Healthcheck         []string // its test
}

// Image returns the image that a reference or ID names.
func (c *Client) Image(ctx context.Context, ref string) (Image, error) {
	r, err := c.api.ImageInspect(ctx, ref)
	if err != nil {
		return Image{}, explain(err, "looking for image %s", ref)
	}
	i := Image{ID: r.ID, Tags: r.RepoTags, Digests: r.RepoDigests, Layers: r.RootFS.Layers, Size: r.Size}
	i.Config.OS, i.Config.Architecture = r.Os, r.Architecture
	i.Config.Created, _ = time.Parse(time.RFC3339Nano, r.Created) // none is the zero time
	if c := r.Config; c != nil {
		i.Labels, i.Entrypoint, i.Command = c.Labels, c.Entrypoint, c.Cmd
		i.Config.User, i.Config.WorkingDir, i.Config.StopSignal = c.User, c.WorkingDir, c.StopSignal
		i.Config.Env, i.Config.Shell, i.Config.OnBuild = c.Env, c.Shell, c.OnBuild
		i.Config.Volumes = slices.Sorted(maps.Keys(c.Volumes))
		for port := range c.ExposedPorts {
			i.Config.Ports = append(i.Config.Ports, string(port))
		}
		slices.Sort(i.Config.Ports)
		if c.Healthcheck != nil {
			i.Config.Healthcheck = c.Healthcheck.Test
		}
	}
	return i, nil
}

// Images lists the IDs of the images that carry every one of the labels.
func (c *Client) Images(ctx context.Context, labels ...string) ([]string, error) {
	list, err := c.api.ImageList(ctx, image.ListOptions{Filters: labelled(labels)})
	if err != nil {
		return nil, explain(err, "listing images")
	}
	ids := make([]string, 0, len(list))
	for _, r := range list {
		ids = append(ids, r.ID)
	}
	return ids, nil
}

// Load gives the daemon an image archive, as docker load does. It returns when
// the daemon has taken it in, or the daemon's own error.
func (c *Client) Load(ctx context.Context, archive io.Reader) error {
	r, err := c.api.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return explain(err, "loading an image")
	}
	defer r.Body.Close()
	return explain(drain(r.Body, nil), "loading an image")
}

// Pull fetches an image from its registry, anonymously. Each line of progress
// is passed to show, which may be nil.
func (c *Client) Pull(ctx context.Context, ref string, show func(line string)) error {
	r, err := c.api.ImagePull(ctx, ref, image.PullOptions{})
	if err != nil {
		return explain(err, "pulling %s", ref)
	}
	defer r.Close()
	return explain(drain(r, show), "pulling %s", ref)
}

// drain reads the daemon's stream of JSON messages to its end and returns the
// error that one of them may carry: the HTTP status was sent before.
func drain(r io.Reader, show func(string)) error {
	d := json.NewDecoder(r)
	for {
		var m struct{ ID, Status, Progress, Error string }
		if err := d.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if show != nil && m.Status != "" {
			show(strings.Join(strings.Fields(m.ID+" "+m.Status+" "+m.Progress), " "))
		}
	}
}

// Tag gives an image one more name.
func (c *Client) Tag(ctx context.Context, source, target string) error {
	return explain(c.api.ImageTag(ctx, source, target), "tagging image %s as %s", source, target)
}

// RemoveImage removes a tag and, with its last tag, the image; an ID removes an
// image that has no tag. It never forces: an image in use is ErrConflict.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	// Not the untagged images that it was made from: those may be somebody's.
	_, err := c.api.ImageRemove(ctx, ref, image.RemoveOptions{})
	return explain(err, "removing image %s", ref)
}
