package cuda

import (
	"fmt"

	"github.com/berthdev/berth/trainer/cuda/kernels"
)

// A Peer is a Device that can work together with others of its type. What is called on one
// of them knows nothing of what is called on others, but for Follow. None of these calls waits.
type Peer interface {
	Device
	// Mark notes what has been called on the device until now.
	Mark() error
	// Follow makes what is called later on this device see as done what was called on another
	// one before its last mark.
	Follow(other Peer) error
	// Fetch copies memory of another device here.
	Fetch(to kernels.Pointer, from Peer, at kernels.Pointer, bytes int) error
	// String names the device for errors.
	String() string
}

// exchange has every replica fetch what the others came to: losses and hits, and in training
// gradients and the first one's running statistics. For each pair that is 2.5 MB: for more than
// a few GPUs it would be less to have each take the step for a share of the parameters.
func (n *Network) exchange(train bool) error {
	if err := n.mark(); err != nil {
		return err
	}
	if err := n.meet(); err != nil {
		return err
	}
	for _, r := range n.replicas {
		for _, o := range n.replicas {
			if o == r || o.planned.images == 0 {
				continue
			}
			if err := r.fetch(o, train); err != nil {
				return err
			}
		}
	}
	return n.mark()
}

// fetch fetches what another replica came to.
func (r *replica) fetch(o *replica, train bool) error {
	p := o.planned
	type room struct {
		to, from kernels.Pointer
		floats   int
	}
	rooms := []room{
		{plus(r.losses, 2*p.first), plus(o.losses, 2*p.first), 2 * p.images},
		{plus(r.hits, p.first), plus(o.hits, p.first), p.images},
	}
	if train {
		rooms = append(rooms, room{r.sumsOf(o.index), o.sumsOf(o.index), o.w.size})
	}
	if train && o.index == 0 {
		rooms = append(rooms, room{r.running.at, o.running.at, o.running.size})
	}
	for _, c := range rooms {
		if err := r.dev.(Peer).Fetch(c.to, o.dev.(Peer), c.from, c.floats*floatSize); err != nil {
			return err
		}
	}
	return nil
}

// mark marks what all replicas have done.
func (n *Network) mark() error {
	for _, r := range n.replicas {
		if err := r.dev.(Peer).Mark(); err != nil {
			return err
		}
	}
	return nil
}

// meet has what each replica does next follow what all others did before their marks.
func (n *Network) meet() error {
	for _, r := range n.replicas {
		for _, o := range n.replicas {
			if o == r {
				continue
			}
			if err := r.dev.(Peer).Follow(o.dev.(Peer)); err != nil {
				return err
			}
		}
	}
	return nil
}

// apart is the error of a replica that isn't the same as the first one.
func (n *Network) apart(r *replica, what string) error {
	return fmt.Errorf("%v has other %s than %v, which must be the same to the bit: one of the GPUs computes wrong, "+
		"or what they exchange arrives wrong. Check each of them alone", r.dev, what, n.replicas[0].dev)
}
