package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary play processes that contend for GPUs.
func TestMain(m *testing.M) {
	roles := map[string]func() error{"hold": playHolder, "contend": playContender, "hand over": playHandOver}
	role := os.Getenv("BERTH_TEST_LEASE")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// play returns a process that plays a role, not yet started.
func play(role string, b Book, env ...string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), append(env, "BERTH_TEST_LEASE="+role, envFolder+"="+b.dir)...)
	c.Stderr = os.Stderr
	return c
}

// now is a clock that all processes of the machine share and nobody sets, in
// nanoseconds.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// playHolder holds $GPUS until its standard input ends, and says so.
func playHolder() error {
	var r Request
	if err := json.Unmarshal([]byte(os.Getenv("REQUEST")), &r); err != nil {
		return err
	}
	b, err := Open()
	if err != nil {
		return err
	}
	l, err := b.Acquire(context.Background(), r, Holder{Name: os.Getenv("NAME"), User: "somebody"}, nil)
	if err != nil {
		return err
	}
	fmt.Println("held")
	os.Stdin.Read(make([]byte, 1))
	return l.Close()
}

// A process is one that holds GPUs.
type process struct {
	*exec.Cmd
	done func() // lets it end by itself
}

// holder starts a process that holds GPUs, and waits until it does. change may be nil.
func holder(t *testing.T, b Book, name string, r Request, change func(*exec.Cmd)) process {
	t.Helper()
	request, err := json.Marshal(r)
	require.NoError(t, err)
	c := play("hold", b, "NAME="+name, "REQUEST="+string(request))
	if change != nil {
		change(c)
	}
	in, err := c.StdinPipe()
	require.NoError(t, err)
	out, err := c.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.Start())
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	_, err = out.Read(make([]byte, len("held\n")))
	require.NoError(t, err)
	return process{c, func() { in.Close(); c.Wait() }}
}

func openBook(t testing.TB) Book {
	t.Helper()
	b, err := OpenAt(t.TempDir())
	require.NoError(t, err)
	return b
}

func all(uuids ...string) Request { return Request{Count: len(uuids), Candidates: uuids} }

func one(uuids ...string) Request { return Request{Count: 1, Candidates: uuids} }

var errWait = errors.New("it has to wait")

// noWait is for those who don't.
func noWait(Waiting) error { return errWait }

// take acquires at once, or fails the test.
func take(t testing.TB, b Book, r Request) *Lease {
	t.Helper()
	l, err := b.Acquire(context.Background(), r, Holder{Name: t.Name(), User: "me"}, noWait)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

// queued starts a request that has to wait, returns once it has its place in the
// queue, and sends its lease, or nil if it ended with an error.
func queued(t testing.TB, ctx context.Context, b Book, r Request) <-chan *Lease {
	t.Helper()
	waits, got := make(chan struct{}), make(chan *Lease, 1)
	first := true
	go func() {
		l, err := b.Acquire(ctx, r, Holder{Name: "waits", User: "me"}, func(Waiting) error {
			if first {
				first = false
				close(waits)
			}
			return nil
		})
		if err != nil {
			assert.ErrorIs(t, err, ctx.Err())
		}
		got <- l
	}()
	select {
	case <-waits:
	case <-time.After(10 * time.Second):
		require.Fail(t, "it doesn't wait")
	}
	return got
}

// get waits for a lease that nothing is in the way of any more.
func get(t testing.TB, got <-chan *Lease) *Lease {
	t.Helper()
	select {
	case l := <-got:
		return l
	case <-time.After(20 * time.Second):
		require.Fail(t, "the lease didn't come")
		return nil
	}
}
