package lease

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// crowd and each are 1,000 contenders: so many processes, with so many each.
const crowd, each = 100, 10

// playHandOver contends for one GPU, by leases or by bare flock(2), and prints when it
// got it and when it gave it back.
func playHandOver() error {
	b, err := Open()
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	for range each {
		work.Go(func() {
			got, gave, err := handOver(b, os.Getenv("PEER") != "")
			if err != nil {
				panic(err)
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(got, gave)
		})
	}
	work.Wait()
	return nil
}

func handOver(b Book, peer bool) (got, gave int64, err error) {
	var lock io.Closer
	if peer {
		f, err := b.openLock("peer")
		if err != nil {
			return 0, 0, err
		}
		if _, err := flock(f, unix.LOCK_EX); err != nil {
			return 0, 0, err
		}
		lock = f
	} else if lock, err = b.Acquire(context.Background(), all("GPU-a"), Holder{Name: "contender"}, nil); err != nil {
		return 0, 0, err
	}
	got = now()
	time.Sleep(time.Millisecond)
	gave = now()
	return got, gave, lock.Close()
}

// BenchmarkHandOver is the time from the moment in which one gives a GPU back to that
// in which the next has it, with 1,000 contenders, in turn with bare flock(2). The
// figures are medians and 99th percentiles in milliseconds.
func BenchmarkHandOver(b *testing.B) {
	book := openBook(b)
	var ours, theirs []float64
	for b.Loop() {
		ours = append(ours, handOvers(b, book, "")...)
		theirs = append(theirs, handOvers(b, book, "PEER=1")...)
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	b.ReportMetric(ours[len(ours)/2], "lease-ms")
	b.ReportMetric(ours[len(ours)*99/100], "lease-p99-ms")
	b.ReportMetric(theirs[len(theirs)/2], "flock-ms")
	b.ReportMetric(theirs[len(theirs)*99/100], "flock-p99-ms")
}

// handOvers lets a crowd of processes wait for a GPU, gives it to them, and returns how
// long each hand-over took, in milliseconds.
func handOvers(b *testing.B, book Book, peer string) (took []float64) {
	lock, err := book.openLock("peer")
	require.NoError(b, err)
	_, err = flock(lock, unix.LOCK_EX)
	require.NoError(b, err)
	lease := take(b, book, all("GPU-a"))
	var outs []io.Reader
	var processes []*exec.Cmd
	for range crowd {
		c := play("hand over", book, peer)
		out, err := c.StdoutPipe()
		require.NoError(b, err)
		require.NoError(b, c.Start())
		processes, outs = append(processes, c), append(outs, out)
	}
	for waiting := 0; waiting < crowd*each; time.Sleep(50 * time.Millisecond) {
		waiting = countWaiting(b, book, peer)
	}
	require.NoError(b, lease.Close())
	require.NoError(b, lock.Close())
	var moments [][2]int64
	for i, out := range outs {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var m [2]int64
			_, err := fmt.Sscan(lines.Text(), &m[0], &m[1])
			require.NoError(b, err)
			moments = append(moments, m)
		}
		require.NoError(b, processes[i].Wait())
	}
	require.Len(b, moments, crowd*each)
	slices.SortFunc(moments, func(x, y [2]int64) int { return int(x[0] - y[0]) })
	for i := range moments[1:] {
		took = append(took, float64(moments[i+1][0]-moments[i][1])/1e6)
	}
	return took
}

// countWaiting returns how many wait: those in the queue, or those that the kernel
// lists as waiting for the lock of that file ("->" in /proc/locks, proc(5)).
func countWaiting(b *testing.B, book Book, peer string) int {
	if peer == "" {
		queue, err := book.names(queuePrefix)
		require.NoError(b, err)
		return len(queue)
	}
	info, err := os.Stat(book.path("peer"))
	require.NoError(b, err)
	locks, err := os.ReadFile("/proc/locks")
	require.NoError(b, err)
	waiting := 0
	for line := range strings.Lines(string(locks)) {
		if strings.Contains(line, "->") && strings.Contains(line, fmt.Sprintf(":%d ", inode(info))) {
			waiting++
		}
	}
	return waiting
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
