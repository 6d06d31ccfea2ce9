package launch

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/berthdev/berth/docker/daemon"
)

// TestMain lets the test binary play mage run: a process of its own, with a
// terminal, signals and an exit code.
func TestMain(m *testing.M) {
	options := os.Getenv("BERTH_TEST_RUN")
	if options == "" {
		os.Exit(m.Run())
	}
	code, err := launchWith(options)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func launchWith(options string) (int, error) {
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return ExitDaemon, err
	}
	ctx := context.Background()
	d, err := daemon.Connect(ctx)
	if err != nil {
		return ExitDaemon, err
	}
	defer d.Close()
	s := Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	h, err := Probe(ctx, d, o, s)
	if err != nil {
		return ExitDaemon, err
	}
	p, err := NewPlan(h, o)
	if err != nil {
		return ExitDaemon, err
	}
	return Run(ctx, d, p, s)
}
