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
	do    func(worker, part int) // nil between phases: a pool that waits keeps no network alive
	wait  sync.WaitGroup
	wake  []chan struct{} // of each worker but the first, which is the caller
}

// newPool starts the workers, which wait until stop. They last from phase to
// phase, since starting goroutines may allocate.
func newPool(workers int) *pool {
	p := &pool{}
	for w := 1; w < workers; w++ {
		wake := make(chan struct{}, 1)
		p.wake = append(p.wake, wake)
		go func() {
			for range wake {
				p.work(w)
				p.wait.Done()
			}
		}()
	}
	return p
}

// stop ends the workers.
func (p *pool) stop() {
	for _, wake := range p.wake {
		close(wake)
	}
}

// run calls do for every part and returns when all are done.
func (p *pool) run(parts int, do func(worker, part int)) {
	p.parts, p.do = int64(parts), do
	p.next.Store(0)
	others := min(len(p.wake), max(parts-1, 0))
	p.wait.Add(others)
	for _, wake := range p.wake[:others] {
		wake <- struct{}{}
	}
	p.work(0)
	p.wait.Wait()
	p.do = nil
}

func (p *pool) work(worker int) {
	for i := p.next.Add(1) - 1; i < p.parts; i = p.next.Add(1) - 1 {
		p.do(worker, int(i))
	}
}
