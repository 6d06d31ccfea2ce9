package report

import (
	"encoding/xml"
	"errors"
	"flag"
	"image"
	_ "image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/trainer/checkpoint"
)

var update = flag.Bool("update", false, "write golden files")

// run is a record whose losses fall and whose accuracies rise.
func run(epochs int, rate float64) *Record {
	r := &Record{Format: Format, Outcome: "finished", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	for i := range epochs {
		gone := math.Exp(-rate * float64(i))
		r.Epochs = append(r.Epochs, Epoch{Number: i + 1, Epoch: checkpoint.Epoch{
			TrainLoss: 0.2 + gone, TestLoss: 0.3 + gone/2, TrainAccuracy: 0.95 - gone/2, TestAccuracy: 0.9 - gone/4,
		}, Seconds: 20, ImagesPerSecond: 3000})
	}
	return r
}

func TestDraw(t *testing.T) {
	one := Charts([]*Record{run(10, 0.5)}, nil)
	two := Charts([]*Record{run(10, 0.5), run(6, 0.3)}, []string{"base", "other"})
	for name, c := range map[string]struct {
		charts []Chart
		screen Screen
	}{
		"one":          {one, Screen{Width: 60, Unicode: true}},
		"ascii":        {one, Screen{Width: 60}},
		"colour":       {two, Screen{Width: 50, Unicode: true, Colour: true}},
		"one-epoch":    {Charts([]*Record{run(1, 1)}, nil), Screen{Width: 40, Unicode: true}},
		"wide-as-most": {two, Screen{Width: 500, Unicode: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Draw(c.charts, c.screen)
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o666))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			assert.Equal(t, string(want), got)
			assert.Equal(t, c.screen.Colour, strings.Contains(got, "\x1b["))
			for line := range strings.Lines(got) {
				assert.Equal(t, c.screen.Unicode || utf8.RuneCountInString(line) == len(line), true, "ASCII only: %q", line)
				if !c.screen.Colour {
					assert.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), min(max(c.screen.Width, 40), 100))
				}
			}
		})
	}
	assert.Empty(t, Draw(Charts([]*Record{{}}, nil), Screen{Width: 80}), "nothing to draw")
}

// TestDrawOddValues: values that are no numbers, or all the same, leave a chart.
func TestDrawOddValues(t *testing.T) {
	for _, values := range [][]float64{
		{math.NaN()}, {math.Inf(1), 1}, {1, math.NaN(), 2}, {3, 3, 3}, {math.MaxFloat64, -math.MaxFloat64 / 4}, {9e299, -9e299}, {1e20, 1e20},
		make([]float64, 1000),
	} {
		charts := []Chart{{Title: "odd", Series: []Series{{Name: "a", Values: values}}}}
		for _, unicode := range []bool{true, false} {
			assert.Contains(t, Draw(charts, Screen{Width: 80, Unicode: unicode}), "odd")
		}
		require.NoError(t, WritePNG(filepath.Join(t.TempDir(), "odd.png"), charts))
	}
}

func TestPNG(t *testing.T) {
	name := filepath.Join(t.TempDir(), "curve.png")
	require.NoError(t, WritePNG(name, Charts([]*Record{run(50, 0.2)}, nil)))
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	img, kind, err := image.Decode(f)
	require.NoError(t, err)
	assert.Equal(t, "png", kind)
	// Both lines are there, in both halves.
	counts := map[[4]uint32]int{}
	size := img.Bounds().Size()
	for x := range size.X {
		for y := range size.Y {
			r, g, b, _ := img.At(x, y).RGBA()
			counts[[4]uint32{r >> 8, g >> 8, b >> 8, uint32(2 * x / size.X)}]++
		}
	}
	for half := range uint32(2) {
		assert.Greater(t, counts[[4]uint32{0, 114, 178, half}], 500)
		assert.Greater(t, counts[[4]uint32{230, 159, 0, half}], 500)
	}
	assert.Error(t, WritePNG(filepath.Join(name, "below"), Charts([]*Record{run(2, 1)}, nil)))
}

func TestWholeTicks(t *testing.T) {
	for _, c := range []struct {
		high float64
		want string
	}{{2, "1 2"}, {10, "1 2 3 4 5 6 7 8 9 10"}, {50, "1 5 10 15 20 25 30 35 40 45 50"}, {100000, ""}} {
		var labels []string
		for _, tick := range (wholeTicks{}).Ticks(1, c.high) {
			labels = append(labels, tick.Label)
		}
		if c.want != "" {
			assert.Equal(t, c.want, strings.Join(labels, " "))
		}
		assert.LessOrEqual(t, len(labels), 102)
	}
}

func TestRecord(t *testing.T) {
	name := filepath.Join(t.TempDir(), "run.json")
	want := run(3, 0.4)
	require.NoError(t, want.WriteFile(name))
	got, err := ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	raw, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Contains(t, string(raw), `"test_accuracy": 0.65`, "an epoch's results lie flat in it")

	best, ok := got.Best()
	assert.True(t, ok)
	assert.Equal(t, 3, best.Number)
	_, ok = (&Record{}).Best()
	assert.False(t, ok)

	for content, want := range map[string]string{
		"":                "unexpected end of JSON input",
		"{}":              "its format is 0, this trainer reads 1",
		`{"format":2}`:    "its format is 2, this trainer reads 1",
		`[1]`:             "cannot unmarshal array",
		`{"epochs":[{}]}`: "its format is 0",
	} {
		require.NoError(t, os.WriteFile(name, []byte(content), 0o666))
		_, err := ReadFile(name)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "Give a file that `trainer train --json` wrote")
	}
	_, err = ReadFile(name + ".none")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// FuzzRecord: what can be read can be drawn.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"format":1,"epochs":[{"epoch":1,"train_loss":0.5,"test_accuracy":0.9},{"epoch":2,"train_loss":1e308,"test_loss":-1e308}]}`))
	f.Add([]byte(`{"format":1,"epochs":[]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parse(raw)
		if err != nil {
			return
		}
		r.Best()
		for _, screen := range []Screen{{Width: 80, Unicode: true}, {Width: 1}} {
			Draw(Charts([]*Record{r, r}, []string{"a", "b"}), screen)
		}
	})
}

func TestJUnit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "junit.xml")
	require.NoError(t, WriteJUnit(name, "smoke", []Case{
		{Name: "one", Detail: "a < b", Took: 1500 * time.Millisecond},
		{Name: "two", Err: errors.New(`"no" & never`), Took: time.Second},
	}))
	raw, err := os.ReadFile(name)
	require.NoError(t, err)
	var suite struct {
		Tests    int    `xml:"tests,attr"`
		Failures int    `xml:"failures,attr"`
		Time     string `xml:"time,attr"`
		Cases    []struct {
			Name    string `xml:"name,attr"`
			Out     string `xml:"system-out"`
			Failure *struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	require.NoError(t, xml.Unmarshal(raw, &suite))
	assert.Equal(t, []int{2, 1}, []int{suite.Tests, suite.Failures})
	assert.Equal(t, "2.500", suite.Time)
	assert.Equal(t, "a < b", suite.Cases[0].Out)
	assert.Nil(t, suite.Cases[0].Failure)
	assert.Equal(t, `"no" & never`, suite.Cases[1].Failure.Message)
}
