package launch

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// makeRaw switches the person's terminal to raw mode, and tells another one its size,
// now and whenever that changes, until restore is called.
func (s Streams) makeRaw(resize func(rows, columns uint)) (restore func(), err error) {
	in := int(s.In.Fd())
	state, err := term.MakeRaw(in)
	if err != nil {
		return nil, fmt.Errorf("switching the terminal to raw mode: %w", err)
	}
	tell := func() {
		if rows, columns := s.size(); rows > 0 && columns > 0 {
			resize(rows, columns)
		}
	}
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	go func() {
		tell()
		for range resized {
			tell()
		}
	}()
	return func() {
		signal.Stop(resized)
		close(resized)
		term.Restore(in, state)
	}, nil
}

// size is that of the person's terminal, 0 where there is none.
func (s Streams) size() (rows, columns uint) {
	c, r, err := term.GetSize(int(s.Out.Fd()))
	if err != nil {
		return 0, 0
	}
	return uint(r), uint(c)
}

// terminal reports whether the person has one for input and output.
func (s Streams) terminal() bool {
	return term.IsTerminal(int(s.In.Fd())) && term.IsTerminal(int(s.Out.Fd()))
}
