package daemon

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/volume"
)

// CreateVolume makes a named volume; one that exists stays as it is.
func (c *Client) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	_, err := c.api.VolumeCreate(ctx, volume.CreateOptions{Name: name, Labels: labels})
	return explain(err, "creating volume %s", name)
}

// RemoveVolume removes a volume. It is a no-op if there is none.
func (c *Client) RemoveVolume(ctx context.Context, name string) error {
	err := c.api.VolumeRemove(ctx, name, false)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return explain(err, "removing volume %s", name)
}

// Volumes lists the names of the volumes that carry every one of the labels.
func (c *Client) Volumes(ctx context.Context, labels ...string) ([]string, error) {
	list, err := c.api.VolumeList(ctx, volume.ListOptions{Filters: labelled(labels)})
	if err != nil {
		return nil, explain(err, "listing volumes")
	}
	names := make([]string, 0, len(list.Volumes))
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return names, nil
}

// A VolumeStatus is what the daemon says of a volume that exists.
type VolumeStatus struct {
	Name   string
	Labels map[string]string
}

// Volume returns the status of the volume with that name.
func (c *Client) Volume(ctx context.Context, name string) (VolumeStatus, error) {
	v, err := c.api.VolumeInspect(ctx, name)
	if err != nil {
		return VolumeStatus{}, explain(err, "looking at volume %s", name)
	}
	return VolumeStatus{Name: v.Name, Labels: v.Labels}, nil
}
