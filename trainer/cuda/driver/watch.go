//go:build cuda && cgo && linux && amd64

package driver

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"time"
)

// envTimeout is how long a call of the driver may last.
const envTimeout = "BERTH_GPU_TIMEOUT"

var patience = sync.OnceValues(func() (time.Duration, error) { return parsePatience(os.Getenv(envTimeout)) })

func parsePatience(text string) (time.Duration, error) {
	text = cmp.Or(text, "2m")
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s=%s is no time to wait for a GPU. Give one such as 90s or 10m", envTimeout, text)
	}
	return d, nil
}

var hung = make(chan error, 1)

// Hung receives an error when a call of the driver doesn't return in time, of whichever
// function here. Whoever made that call doesn't come back, and nothing can undo it: all that
// can be done then is to end the process.
func Hung() <-chan error { return hung }

// watch has a call that begins now reported as one that hangs, unless it ends in time.
func watch(who fmt.Stringer) (ended func()) {
	limit, err := patience()
	if err != nil {
		panic(err) // load has asked before
	}
	return afterRunning(limit, func() {
		err := fmt.Errorf("%s hangs: a call of its driver has lasted %s. `dmesg` may say more: look for Xid. "+
			"If it is only slow (it computes a whole epoch in one call), give it more time, with %s=10m", who, limit, envTimeout)
		if d, ok := who.(*Device); ok && d.together != "" {
			err = fmt.Errorf("%w. It works together with others of %s: it may be one of them", err, d.together)
		}
		select {
		case hung <- err:
		default: // another call hangs already
		}
	})
}

// afterRunning calls f once this process has run for about so long, unless it is told to stop
// before. A timer goes on while the process is stopped itself (Ctrl-Z, `docker pause`), and is
// overdue when that goes on; so there are many short ones, one after the other, of which a stop
// uses up one.
func afterRunning(limit time.Duration, f func()) (stop func()) {
	const timers = 20
	var (
		mu    sync.Mutex
		timer *time.Timer
		left  = timers
	)
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(limit/timers, func() {
		mu.Lock()
		defer mu.Unlock()
		if left--; left > 0 {
			timer.Reset(limit / timers)
		} else if left == 0 {
			f()
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		left = 0
		timer.Stop()
	}
}

// named is a GPU of which no more is known than how to name it.
type named string

func (n named) String() string { return string(n) }
