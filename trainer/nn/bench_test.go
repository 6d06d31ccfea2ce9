package nn

import (
	"fmt"
	"testing"
)

func BenchmarkTrainStep(b *testing.B) {
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			n := newNetwork(b, Config{Channels: 3, Classes: 10, Workers: workers, Dropout: 0.5})
			x, y := batch(1, 500, 3, 10)
			step := func() {
				if _, _, err := n.TrainStep(x, y); err != nil {
					b.Fatal(err)
				}
			}
			step()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				step()
			}
			b.ReportMetric(500*float64(b.N)/b.Elapsed().Seconds(), "images/s")
		})
	}
}
