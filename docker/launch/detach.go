package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/signals"
)

// keeperVariable is set for a process that is to be a keeper (see KeepIfAsked).
const keeperVariable = "BERTH_KEEPER"

// The files that a keeper is started with, after the standard ones.
const (
	answerFile = 3 + iota // to write the answer to
	firstHeld             // and the following
)

// An order is what a keeper has to do.
type order struct {
	Plan   Plan
	Values []string // of the plan's environment, which JSON leaves out where they are the host's
	Files  [][]byte // contents of the plan's files: some passwd files aren't UTF-8
	Cookie []byte   // of the plan's display
	Held   int      // how many files it holds
}

func newOrder(p Plan, held int) order {
	o := order{Plan: p, Cookie: p.Display.Cookie(), Held: held}
	for _, v := range p.Env {
		o.Values = append(o.Values, v.Value)
	}
	for _, f := range p.Files {
		o.Files = append(o.Files, []byte(f.Content))
	}
	return o
}

// plan is the whole plan of an order that went through JSON.
func (o order) plan() Plan {
	p := o.Plan
	p.Display = p.Display.WithCookie(o.Cookie)
	p.Env = slices.Clone(p.Env)
	for i := range p.Env {
		p.Env[i].Value = o.Values[i]
	}
	p.Files = slices.Clone(p.Files)
	for i := range p.Files {
		p.Files[i].Content = string(o.Files[i])
	}
	return p
}

// An answer says that the container of an order has started, or why it hasn't.
type answer struct {
	Error  string   // "" if it has started
	Advice []string // about the error
	Code   int      // exit code, as of Run
}

func answerOf(code int, err error) answer {
	if err == nil {
		return answer{}
	}
	return answer{Error: err.Error(), Advice: advice.Of(err), Code: code}
}

func (a answer) err() error {
	if a.Error == "" {
		return nil
	}
	err := errors.New(a.Error)
	for _, text := range slices.Backward(a.Advice) {
		err = advice.With(err, "%s", text)
	}
	return err
}

// Detach carries out a plan like Run, but returns once the container has started: then
// it goes on without this process, its terminal and its session. A keeper, this same
// program as another process, waits for its end; the program must call KeepIfAsked when
// it begins. The keeper holds the files in held, with their flocks, until the container
// has ended, also if the caller closes them (but not if it unlocks them). Then it saves
// the output and the exit code in the cache (see owned.Ended), and removes everything
// else.
//
// The exit code is that of docker run -d: 0, or Docker's own with the error. If ctx ends
// before the container has started, there won't be one, and the code is 128 and the
// number of the signal that ended ctx.
func Detach(ctx context.Context, d *daemon.Client, p Plan, s Streams, held ...*os.File) (code int, err error) {
	dir, err := p.prepare(ctx, d, s)
	if ctx.Err() != nil {
		return interrupted(ctx)
	} else if err != nil {
		return ExitDaemon, err
	}
	text, err := json.Marshal(newOrder(p, len(held)))
	if err != nil {
		return ExitDaemon, err
	}
	self, err := thisProgram()
	if err != nil {
		return ExitDaemon, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return ExitDaemon, err
	}
	defer r.Close()
	c := exec.Command(self)
	c.Args = []string{"berth-keeper", p.Container.Name} // for those who list processes
	c.Env = append(os.Environ(), keeperVariable+"=1", "BERTH_CACHE="+string(dir))
	c.Stdin = bytes.NewReader(text)
	c.ExtraFiles = append([]*os.File{w}, held...)
	// A session of its own, without a terminal: whatever becomes of the person's, no
	// signal and no failing write comes from there.
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	w.Close()
	if err != nil {
		return ExitDaemon, fmt.Errorf("starting the process that keeps the launch: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	answered := make(chan answer, 1)
	go func() {
		defer close(answered)
		var a answer
		if json.NewDecoder(r).Decode(&a) == nil {
			answered <- a
		}
	}()
	select {
	case a, ok := <-answered:
		if !ok {
			return ExitDaemon, fmt.Errorf("the process that keeps the launch ended before it had started the container (%v). "+
				"A magefile must have a variable that is set by targets.Use(commands.Of(…)), another program must call launch.KeepIfAsked", <-ended)
		}
		return a.Code, a.err()
	case <-ctx.Done():
		c.Process.Signal(syscall.SIGTERM)
		<-ended
		return interrupted(ctx)
	}
}

// interrupted is the exit code and the error of what ended with ctx.
func interrupted(ctx context.Context) (code int, err error) {
	err = signals.Explain(ctx, context.Cause(ctx))
	if i := (signals.Interrupt{}); errors.As(err, &i) {
		return i.ExitCode(), err
	}
	return ExitDaemon, err
}

// thisProgram is the path of what this process runs: on Linux also if the file was
// replaced or removed since, as by a new build.
func thisProgram() (string, error) {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}
