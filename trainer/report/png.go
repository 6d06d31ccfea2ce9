package report

import (
	"fmt"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/berthdev/berth/trainer/internal/atomic"
)

// WritePNG draws charts side by side into a PNG file, whole or not at all.
func WritePNG(name string, charts []Chart) error {
	const width, height = 16 * vg.Centimeter, 11 * vg.Centimeter // of one chart
	plots := make([]*plot.Plot, len(charts))
	for i, c := range charts {
		p, err := c.plot()
		if err != nil {
			return fmt.Errorf("curve: %w", err)
		}
		plots[i] = p
	}
	canvas := vgimg.New(width*vg.Length(len(plots)), height)
	tiles := draw.Tiles{
		Rows: 1, Cols: len(plots), PadX: vg.Centimeter,
		PadTop: vg.Centimeter / 2, PadBottom: vg.Centimeter / 2, PadLeft: vg.Centimeter / 2, PadRight: vg.Centimeter,
	}
	for i, area := range plot.Align([][]*plot.Plot{plots}, tiles, draw.New(canvas))[0] {
		plots[i].Draw(area)
	}
	err := atomic.WriteFile(name, func(w io.Writer) error {
		_, err := vgimg.PngCanvas{Canvas: canvas}.WriteTo(w)
		return err
	})
	if err != nil {
		return fmt.Errorf("curve: %w", err)
	}
	return nil
}

func (c Chart) plot() (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = c.Title
	p.X.Label.Text = "epoch"
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{225}, color.Gray{225}
	p.Add(grid)
	// Losses fall and accuracies rise: their curves leave these corners free.
	p.Legend.Top = len(c.Series) > 0 && falls(c.Series[0].Values)
	p.Legend.Padding = vg.Millimeter
	for _, s := range c.Series {
		var points plotter.XYs
		for e, v := range s.Values {
			if finite(v) {
				points = append(points, plotter.XY{X: float64(e + 1), Y: v})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return nil, err
		}
		rgb := style(colours, s.Style)
		line.Color = color.RGBA{rgb[0], rgb[1], rgb[2], 255}
		line.Width = vg.Points(2)
		dots.Color, dots.Shape, dots.Radius = line.Color, draw.CircleGlyph{}, vg.Points(2.5)
		p.Add(line, dots)
		p.Legend.Add(s.Name, line, dots)
	}
	low, high, epochs := c.limits()
	gap := (high - low) / 20
	p.Y.Min, p.Y.Max = low-gap, high+gap
	p.X.Min, p.X.Max = 1, float64(max(epochs, 2))
	p.X.Tick.Marker = wholeTicks{}
	return p, nil
}

func falls(values []float64) bool {
	return len(values) > 0 && values[len(values)-1] <= values[0]
}

// wholeTicks marks whole epochs only.
type wholeTicks struct{}

func (wholeTicks) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	step := 1
	for _, s := range []int{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000} {
		step = s
		if int(high-low)/s <= 10 {
			break
		}
	}
	for e := 1; e <= int(high); e++ {
		if e == 1 || e%step == 0 {
			ticks = append(ticks, plot.Tick{Value: float64(e), Label: fmt.Sprint(e)})
		}
	}
	return ticks
}
