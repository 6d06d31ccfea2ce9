package report

import (
	"fmt"
	"math"
	"strings"
)

// A Series is one line of a chart: its values, one for each epoch.
type Series struct {
	Name   string
	Values []float64
	Style  int // of the dashes; see dashes
}

// A Chart is what is drawn into one frame.
type Chart struct {
	Title  string
	Series []Series
}

// Charts are the loss and the accuracy of one run, or, of several, their test
// losses and test accuracies, one line for each run. Runs are named by names.
func Charts(runs []*Record, names []string) []Chart {
	loss, accuracy := Chart{Title: "loss"}, Chart{Title: "accuracy"}
	add := func(c *Chart, name string, style int, epochs []Epoch, value func(Epoch) float64) {
		s := Series{Name: name, Style: style}
		for _, e := range epochs {
			s.Values = append(s.Values, value(e))
		}
		c.Series = append(c.Series, s)
	}
	testLoss := func(e Epoch) float64 { return e.TestLoss }
	testAccuracy := func(e Epoch) float64 { return e.TestAccuracy }
	if len(runs) == 1 {
		epochs := runs[0].Epochs
		add(&loss, "train", 0, epochs, func(e Epoch) float64 { return e.TrainLoss })
		add(&loss, "test", 1, epochs, testLoss)
		add(&accuracy, "train", 0, epochs, func(e Epoch) float64 { return e.TrainAccuracy })
		add(&accuracy, "test", 1, epochs, testAccuracy)
	} else {
		loss.Title, accuracy.Title = "test loss", "test accuracy"
		for i, r := range runs {
			add(&loss, names[i], i, r.Epochs, testLoss)
			add(&accuracy, names[i], i, r.Epochs, testAccuracy)
		}
	}
	return []Chart{loss, accuracy}
}

// limits are the smallest and largest value of a chart, and its most epochs.
// Values that aren't [finite] are left out of every chart.
func (c Chart) limits() (low, high float64, epochs int) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, s := range c.Series {
		epochs = max(epochs, len(s.Values))
		for _, v := range s.Values {
			if finite(v) {
				low, high = min(low, v), max(high, v)
			}
		}
	}
	if low > high {
		return 0, 1, epochs
	}
	if low == high {
		gap := max(0.05, math.Abs(low)/20)
		low, high = low-gap, high+gap
	}
	return low, high, epochs
}

// finite leaves out values so large that their differences may not be finite.
func finite(v float64) bool { return math.Abs(v) < 1e300 }

// dashes are the patterns of lines: which of eight dots in a row are drawn. So
// lines can be told apart without colour.
var dashes = []uint8{0b11111111, 0b00110011, 0b00001111, 0b01011111, 0b00010001, 0b00111111}

// colours of the lines, in the terminal and in pictures (of Okabe and Ito's
// palette, which people with any colour vision can tell apart).
var colours = [][3]uint8{{0, 114, 178}, {230, 159, 0}, {0, 158, 115}, {204, 121, 167}, {213, 94, 0}, {86, 180, 233}}

// style picks from a list that starts again at its end.
func style[T any](list []T, i int) T { return list[i%len(list)] }

// Screen is what a terminal can show.
type Screen struct {
	Width   int  // columns
	Colour  bool // escape sequences for colours
	Unicode bool // more than ASCII
}

const chartLines = 8

// Draw draws charts one under another, in lines of braille dots or, without
// Unicode, of ASCII characters. No line is wider than the screen, down to 40 columns.
func Draw(charts []Chart, s Screen) string {
	var out strings.Builder
	for _, c := range charts {
		c.draw(&out, s)
	}
	return out.String()
}

func (c Chart) draw(out *strings.Builder, s Screen) {
	low, high, epochs := c.limits()
	if epochs == 0 {
		return
	}
	const margin = 9 // of the numbers on the left
	g := newGrid(min(max(s.Width, 40), 100)-margin-1, chartLines, s.Unicode)
	for i, series := range c.Series {
		px, py := -1, -1
		for e, v := range series.Values {
			if !finite(v) {
				px = -1
				continue
			}
			x := 0
			if epochs > 1 {
				x = e * (g.dotsX - 1) / (epochs - 1)
			}
			y := int(math.Round((high - v) / (high - low) * float64(g.dotsY-1)))
			if px < 0 {
				px, py = x, y
			}
			g.line(px, py, x, y, i, style(dashes, series.Style))
			px, py = x, y
		}
	}
	colour := func(i int, text string) string {
		if !s.Colour || i < 0 {
			return text
		}
		rgb := style(colours, c.Series[i].Style)
		return fmt.Sprintf("\x1b[38;2;%d;%d;%dm%s\x1b[0m", rgb[0], rgb[1], rgb[2], text)
	}
	fmt.Fprintf(out, "%*s", margin, c.Title)
	for i, series := range c.Series {
		fmt.Fprintf(out, "  %s %s", colour(i, g.sample(i, style(dashes, series.Style))), series.Name)
	}
	out.WriteByte('\n')
	bar, corner, rule := "│", "└", "─"
	if !s.Unicode {
		bar, corner, rule = "|", "+", "-"
	}
	for y := range g.lines {
		label := ""
		if y%(g.lines-1) == 0 || y == g.lines/2 {
			label = fmt.Sprintf("%.4f", high-(high-low)*float64(y)/float64(g.lines-1))
		}
		fmt.Fprintf(out, "%*s %s", margin-2, label, bar)
		for row := g.cells[y*g.columns:][:g.columns]; len(row) > 0; {
			// As many cells of one colour as follow each other.
			n := 1
			for n < len(row) && row[n].series == row[0].series {
				n++
			}
			var run strings.Builder
			for _, cell := range row[:n] {
				run.WriteString(g.glyph(cell))
			}
			out.WriteString(colour(row[0].series, run.String()))
			row = row[n:]
		}
		out.WriteByte('\n')
	}
	fmt.Fprintf(out, "%*s %s%s\n", margin-2, "", corner, strings.Repeat(rule, g.columns))
	last := fmt.Sprintf("epoch %d", epochs)
	fmt.Fprintf(out, "%*s1%*s\n", margin, "", g.columns-1, last)
}

// A grid is a field of dots: 2x4 in each character of braille, one in each of
// ASCII.
type grid struct {
	columns, lines int
	dotsX, dotsY   int
	unicode        bool
	cells          []cell
}

type cell struct {
	bits   uint8 // of braille; any but 0 in ASCII
	series int   // that drew here last, or -1
}

func newGrid(columns, lines int, unicode bool) *grid {
	g := &grid{columns: columns, lines: lines, dotsX: columns, dotsY: lines, unicode: unicode, cells: make([]cell, columns*lines)}
	if unicode {
		g.dotsX, g.dotsY = 2*columns, 4*lines
	}
	for i := range g.cells {
		g.cells[i].series = -1
	}
	return g
}

// brailleBits are the dots of a braille character, by line and column.
var brailleBits = [4][2]uint8{{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}}

func (g *grid) dot(x, y, series int) {
	if !g.unicode {
		g.cells[y*g.columns+x] = cell{1, series}
		return
	}
	c := &g.cells[y/4*g.columns+x/2]
	c.bits |= brailleBits[y%4][x%2]
	c.series = series
}

// line draws from one dot to another (Bresenham), leaving out what the dashes
// leave out.
func (g *grid) line(x0, y0, x1, y1, series int, dash uint8) {
	dx, dy := x1-x0, -abs(y1-y0)
	step := 1
	if y1 < y0 {
		step = -1
	}
	for err := dx + dy; ; {
		// Steep parts are drawn whole: dashes go by x.
		if !g.unicode || dash>>(x0%8)&1 == 1 {
			g.dot(x0, y0, series)
		}
		if x0 == x1 && y0 == y1 {
			return
		}
		twice := 2 * err
		if twice >= dy {
			err += dy
			x0++
		}
		if twice <= dx {
			err += dx
			y0 += step
		}
	}
}

func (g *grid) glyph(c cell) string {
	if c.bits == 0 {
		return " "
	}
	if !g.unicode {
		return string("*+xo#@"[c.series%6])
	}
	return string(rune(0x2800 + int(c.bits)))
}

// sample is a piece of a series' line, for the legend.
func (g *grid) sample(series int, dash uint8) string {
	s := newGrid(4, 1, g.unicode)
	s.line(0, s.dotsY/2, s.dotsX-1, s.dotsY/2, series, dash)
	var out strings.Builder
	for _, c := range s.cells {
		out.WriteString(s.glyph(c))
	}
	return out.String()
}

func abs(x int) int { return max(x, -x) }
