package smoke

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write what the training gives to testdata/golden.json")

func TestMain(m *testing.M) {
	flag.Parse()
	if *update {
		var got result
		if _, err := onCPU(context.Background(), 1, nil, 0, &got); err != nil {
			panic(err)
		}
		raw, err := json.MarshalIndent(got, "", "  ")
		if err == nil {
			err = os.WriteFile("testdata/golden.json", append(raw, '\n'), 0o666)
		}
		if err != nil {
			panic(err)
		}
		os.Exit(0) // the old file is compiled into this binary
	}
	os.Exit(m.Run())
}

func TestChecks(t *testing.T) {
	for _, check := range Checks() {
		for _, c := range check(t.Context()) {
			assert.NoError(t, c.Err, c.Name)
			assert.NotEmpty(t, c.Detail, c.Name)
		}
	}
}

// TestCompare shows that the checks can fail: one bit is enough, anywhere.
func TestCompare(t *testing.T) {
	known := func() *result {
		var r result
		require.NoError(t, json.Unmarshal(goldenFile, &r))
		return &r
	}
	require.NoError(t, known().compare())
	for name, c := range map[string]struct {
		change func(*result)
		want   string
	}{
		"loss":       {func(r *result) { r.Losses[70] *= 1 + 1e-15 }, "the loss of step 71 is"},
		"epoch":      {func(r *result) { r.Epochs[2].TestAccuracy += 0.005 }, "epoch 3 gave"},
		"state":      {func(r *result) { r.Checkpoint = "00" + r.Checkpoint[2:] }, "SHA-256"},
		"cut short":  {func(r *result) { r.Losses = r.Losses[:95] }, "95 steps in 6 epochs, want 96 in 6"},
		"no results": {func(r *result) { *r = result{} }, "0 steps in 0 epochs"},
	} {
		r := known()
		c.change(r)
		assert.ErrorContains(t, r.compare(), c.want, name)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range bits(ctx) {
		assert.ErrorIs(t, c.Err, context.Canceled)
	}
}
