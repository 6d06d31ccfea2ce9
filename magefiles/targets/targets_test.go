package targets

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/magefile/mage/mg"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A taker keeps the flags that it is given.
type taker struct{ method, flags any }

func (k *taker) take(method string, flags any) error {
	k.method, k.flags = method, flags
	return nil
}

func (k *taker) Build(_ context.Context, f BuildFlags) error         { return k.take("Build", f) }
func (k *taker) Verify(_ context.Context, f VerifyFlags) error       { return k.take("Verify", f) }
func (k *taker) Publish(_ context.Context, f PublishFlags) error     { return k.take("Publish", f) }
func (k *taker) Pin(_ context.Context, f PinFlags) error             { return k.take("Pin", f) }
func (k *taker) Materials(_ context.Context, f MaterialsFlags) error { return k.take("Materials", f) }
func (k *taker) Why(_ context.Context, name string) error            { return k.take("Why", name) }
func (k *taker) Clean(context.Context) error                         { return k.take("Clean", struct{}{}) }
func (k *taker) CI(_ context.Context, f CIFlags) error               { return k.take("CI", f) }
func (k *taker) Workflows(_ context.Context, f WorkflowsFlags) error { return k.take("Workflows", f) }
func (k *taker) Lint(_ context.Context, f LintFlags) error           { return k.take("Lint", f) }
func (k *taker) Run(_ context.Context, f RunFlags) error             { return k.take("Run", f) }
func (k *taker) Smoke(_ context.Context, f SmokeFlags) error         { return k.take("Smoke", f) }
func (k *taker) Ps(_ context.Context, f PsFlags) error               { return k.take("Ps", f) }
func (k *taker) Logs(_ context.Context, f LogsFlags) error           { return k.take("Logs", f) }
func (k *taker) Attach(_ context.Context, f AttachFlags) error       { return k.take("Attach", f) }
func (k *taker) Shell(_ context.Context, f ShellFlags) error         { return k.take("Shell", f) }
func (k *taker) Stop(_ context.Context, f StopFlags) error           { return k.take("Stop", f) }
func (k *taker) EngineStart(context.Context) error                   { return k.take("EngineStart", struct{}{}) }
func (k *taker) EngineStop(context.Context) error                    { return k.take("EngineStop", struct{}{}) }
func (k *taker) EnginePrune(context.Context) error                   { return k.take("EnginePrune", struct{}{}) }
func (k *taker) GPUStatus(_ context.Context, f GPUStatusFlags) error { return k.take("GPUStatus", f) }
func (k *taker) Doctor(_ context.Context, f DoctorFlags) error       { return k.take("Doctor", f) }
func (k *taker) EngineLogs(_ context.Context, f EngineLogsFlags) error {
	return k.take("EngineLogs", f)
}
func (k *taker) EngineStatus(_ context.Context, f EngineStatusFlags) error {
	return k.take("EngineStatus", f)
}

// TestFlags types each flag of each target alone, and all together: the method of that name gets
// them, each in a field of its own.
func TestFlags(t *testing.T) {
	got := Use(&taker{})
	t.Cleanup(func() { used = nil })
	for name, target := range map[string]any{
		"Build": Build, "Verify": Verify, "Pin": Pin, "Publish": Publish, "Materials": Materials, "Clean": Clean, "CI": CI, "Lint": Lint, "Workflows": Workflows,
		"Run": Run, "Smoke": Smoke, "Ps": Ps, "Logs": Logs, "Attach": Attach, "Shell": Shell, "Stop": Stop,
		"EngineStatus": Engine.Status, "EngineStart": Engine.Start, "EngineStop": Engine.Stop, "EngineLogs": Engine.Logs,
		"EnginePrune": Engine.Prune, "GPUStatus": GPU.Status, "Doctor": Doctor,
	} {
		f := reflect.ValueOf(target)
		first := 1 // after the context
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		if f.Type().In(0).Kind() != reflect.Interface { // a receiver
			first = 2
			args = append([]reflect.Value{reflect.Zero(f.Type().In(0))}, args...)
		}
		for i := first; i < f.Type().NumIn(); i++ {
			args = append(args, reflect.Zero(f.Type().In(i)))
		}
		call := func(typed ...int) (set []any) {
			all := append([]reflect.Value(nil), args...)
			for _, i := range typed {
				all[i] = reflect.New(f.Type().In(i).Elem())
				switch v := all[i].Interface().(type) {
				case *string:
					*v = fmt.Sprint("flag ", i)
				case *bool:
					*v = true
				case *time.Duration:
					*v = time.Duration(i)
				}
			}
			require.Nil(t, f.Call(all)[0].Interface())
			assert.Equal(t, name, got.method)
			flags := reflect.ValueOf(got.flags)
			for i := range flags.NumField() {
				if v := flags.Field(i); !v.IsZero() {
					set = append(set, fmt.Sprint(flags.Type().Field(i).Name, " ", reflect.Indirect(v)))
				}
			}
			return set
		}
		require.Empty(t, call(), name)
		var each []any
		var every []int
		for i := first; i < len(args); i++ {
			one := call(i)
			require.Len(t, one, 1, "%s, parameter %d", name, i)
			each, every = append(each, one...), append(every, i)
		}
		assert.ElementsMatch(t, each, call(every...), name)
		assert.Equal(t, len(args)-first, reflect.ValueOf(got.flags).NumField(), "%s has a field that no flag sets", name)
	}
}

// TestWhy takes its one argument without a flag.
func TestWhy(t *testing.T) {
	got := Use(&taker{})
	t.Cleanup(func() { used = nil })
	require.NoError(t, Why(t.Context(), "libc6"))
	assert.Equal(t, taker{"Why", "libc6"}, *got)
}

func TestWithoutUse(t *testing.T) {
	defer func() {
		err, _ := recover().(error)
		assert.Equal(t, 2, mg.ExitStatus(err))
		assert.ErrorContains(t, err, "targets.Use(commands.Of(ci.Project{}))")
	}()
	Clean(t.Context())
	t.Error("it should have thrown an error")
}
