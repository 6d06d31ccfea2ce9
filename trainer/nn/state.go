package nn

import (
	"fmt"
	"slices"
)

// State is everything that a network needs to continue to the same bits:
// a plain value that shares no memory with the network.
type State struct {
	Step    int64
	Seed    uint64
	Config  Config
	Tensors []Tensor // parameters, running statistics, Adam's moments; the order is fixed
}

// Tensor is a named array in row-major order, shaped as PyTorch shapes it:
// weights of convolutions are [out, in, height, width], those of the linear
// layer [out, in].
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}

// stored is a tensor of the network: how to read and to write it.
type stored struct {
	name string
	p    *param // nil for running statistics
	data []float32
}

// tensors lists what State holds, in its order.
func (n *Network) tensors() []stored {
	var list []stored
	for _, p := range n.params.list {
		list = append(list, stored{p.name, p, p.w})
	}
	for _, b := range n.blocks {
		for _, bn := range []*batchNorm{b.bn1, b.bn2, b.bnS} {
			list = append(list,
				stored{bn.name + ".running_mean", nil, bn.mean},
				stored{bn.name + ".running_var", nil, bn.vari})
		}
	}
	for _, p := range n.params.list {
		list = append(list, stored{"adam.m." + p.name, p, p.m}, stored{"adam.v." + p.name, p, p.v})
	}
	return list
}

// tensor copies a stored tensor out.
func (s stored) tensor() Tensor {
	if s.p == nil {
		return Tensor{Name: s.name, Shape: []int{len(s.data)}, Data: slices.Clone(s.data)}
	}
	return Tensor{Name: s.name, Shape: slices.Clone(s.p.shape), Data: s.p.export(s.data)}
}

// State returns a copy of the network's state.
func (n *Network) State() State {
	s := State{Step: n.step, Seed: n.cfg.Seed, Config: n.cfg}
	for _, t := range n.tensors() {
		s.Tensors = append(s.Tensors, t.tensor())
	}
	return s
}

// Restore puts the network into a state that [Network.State] returned, of a
// network with as many channels and classes. Seed, learning rate and dropout
// become those of the state; the number of workers stays. An error says what
// does not fit, and changes nothing.
func (n *Network) Restore(s State) error {
	cfg := s.Config
	cfg.Seed, cfg.Workers = s.Seed, n.cfg.Workers
	if err := cfg.check(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if cfg.LR == 0 {
		return fmt.Errorf("restore: the state has no learning rate")
	}
	if cfg.Channels != n.cfg.Channels || cfg.Classes != n.cfg.Classes {
		return fmt.Errorf("restore: the state is of a network for %d channels and %d classes, this one has %d and %d",
			cfg.Channels, cfg.Classes, n.cfg.Channels, n.cfg.Classes)
	}
	if s.Step < 0 {
		return fmt.Errorf("restore: step %d is negative", s.Step)
	}
	list := n.tensors()
	if len(s.Tensors) != len(list) {
		return fmt.Errorf("restore: the state has %d tensors, this network has %d", len(s.Tensors), len(list))
	}
	for i, t := range list {
		got, want := s.Tensors[i], t.tensor()
		if got.Name != want.Name || !slices.Equal(got.Shape, want.Shape) || len(got.Data) != len(want.Data) {
			return fmt.Errorf("restore: tensor %d is %q %v with %d values, want %q %v with %d",
				i, got.Name, got.Shape, len(got.Data), want.Name, want.Shape, len(want.Data))
		}
	}
	for i, t := range list {
		if t.p == nil {
			copy(t.data, s.Tensors[i].Data)
		} else {
			t.p.load(t.data, s.Tensors[i].Data)
		}
	}
	n.cfg, n.step = cfg, s.Step
	return nil
}
