package launch

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/docker/owned"
	"github.com/berthdev/berth/internal/cache"
)

// followLog writes what a launch writes until it ends, whole: Docker cuts followers
// off when it restarts, and when the container is removed.
func (l Launch) followLog(ctx context.Context, d *daemon.Client, s Streams, tail string) error {
	skip := 0
	if n, err := strconv.Atoi(tail); err == nil {
		var count lineCounter
		if err := l.copyLog(ctx, d, &count, &count, allLines, false); err != nil {
			return err
		}
		skip = max(0, count.lines()-n)
	}
	out, errs := &resumer{w: &skipper{s.Out, &skip}}, &resumer{w: &skipper{s.Err, &skip}}
	for p := (pause{}); ; p.wait() {
		out.resume()
		errs.resume()
		err := l.copyLog(ctx, d, out, errs, allLines, true)
		if failed := errors.Join(out.failed, errs.failed); failed != nil || ctx.Err() != nil || !l.Lasting {
			return err
		}
		get := l.inCache
		if !errors.Is(err, daemon.ErrNotFound) {
			if s, err := d.Inspect(ctx, l.status.ID); err != nil || !s.Ended() {
				continue
			}
			get = l.saved
		}
		saved, err := get(ctx, d)
		if err != nil || saved.ended == nil {
			return err
		}
		out.resume()
		errs.resume()
		return saved.copySaved(out, errs, allLines)
	}
}

// inCache returns the launch as it was saved after its end, without ended if it wasn't.
func (l Launch) inCache(ctx context.Context, d *daemon.Client) (Launch, error) {
	dir, err := cache.Open()
	if err != nil {
		return l, err
	}
	owned.Sweep(ctx, dir, d, false) // if its keeper was killed; else there is nothing to do
	all, err := owned.AllEnded(dir)
	if i := slices.IndexFunc(all, func(e owned.Ended) bool { return e.ID == l.status.ID }); i >= 0 {
		return launchesOf(nil, nil, all[i:i+1])[0], nil
	}
	return l, err
}

// A resumer writes a stream that is begun anew, each time without what it has written.
type resumer struct {
	w      io.Writer
	done   int   // bytes written
	drop   int   // of those, how many are still to come again
	failed error // of a write
}

func (r *resumer) resume() { r.drop = r.done }

func (r *resumer) Write(p []byte) (int, error) {
	again := min(r.drop, len(p))
	r.drop -= again
	n, err := r.w.Write(p[again:])
	r.done += n
	if err != nil {
		r.failed = err
	}
	return again + n, err
}
