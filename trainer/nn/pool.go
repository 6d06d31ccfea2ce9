package nn

import (
	"sync"
	"sync/atomic"
)

// A pool runs the parts of one phase after another. The parts of a phase
// must not depend on each other, nor on the worker that runs them.
type pool struct {
	next  atomic.Int64
	parts int64
	do    func(worker, part int)
	wait  sync.WaitGroup
	loops []func() // one a worker, made once: starting them allocates nothing
}

func newPool(workers int) *pool {
	p := &pool{}
	for w := range workers {
		p.loops = append(p.loops, func() {
			defer p.wait.Done()
			for i := p.next.Add(1) - 1; i < p.parts; i = p.next.Add(1) - 1 {
				p.do(w, int(i))
			}
		})
	}
	return p
}

// run calls do for every part and returns when all are done.
func (p *pool) run(parts int, do func(worker, part int)) {
	p.parts, p.do = int64(parts), do
	p.next.Store(0)
	workers := min(len(p.loops), parts)
	p.wait.Add(workers)
	for _, loop := range p.loops[1:max(workers, 1)] {
		go loop()
	}
	if parts > 0 {
		p.loops[0]()
	}
	p.wait.Wait()
}
