package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// stallTimeout is how long a mirror may send nothing before the next one is asked.
const stallTimeout = 20 * time.Second

// Progress is told what long work is doing. *progress.Reporter is one.
type Progress interface {
	Update(format string, args ...any) // a line that replaces the one before
	Printf(format string, args ...any) // a line that stays
}

type noProgress struct{}

func (noProgress) Update(string, ...any) {}
func (noProgress) Printf(string, ...any) {}

// errNotThere is in the chain of the error of a mirror that answered that it
// doesn't have a file.
var errNotThere = errors.New("not there")

// errUnreachable is in the chain of the error of a mirror that didn't answer.
var errUnreachable = errors.New("no answer")

// A getter downloads files. The zero value has the usual timeouts.
type getter struct {
	client *http.Client  // http.DefaultClient if nil
	stall  time.Duration // the usual if 0
}

// get returns the file at address from the given offset on, and the offset that the
// mirror agreed to (0 where it can't resume). Reads fail when nothing comes for
// too long.
func (g getter) get(ctx context.Context, address string, offset int64) (io.ReadCloser, int64, error) {
	client, limit := g.client, g.stall
	if client == nil {
		client = http.DefaultClient
	}
	if limit == 0 {
		limit = stallTimeout
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("%w: it sent nothing for %s", errUnreachable, limit))
	})
	fail := func(err error) (io.ReadCloser, int64, error) {
		timer.Stop()
		cancel(nil)
		return nil, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		// The cause quotes the address, or the part of it that may be a password.
		return fail(errors.New("its address isn't a URL"))
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := client.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fail(cause)
		}
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // without the address: public names the mirror
		}
		return fail(fmt.Errorf("%w: %w", errUnreachable, err))
	}
	switch resp.StatusCode {
	case http.StatusOK:
		offset = 0
	case http.StatusPartialContent:
	default:
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
			return fail(fmt.Errorf("%w: %s", errNotThere, resp.Status))
		}
		return fail(fmt.Errorf("it answered %s", resp.Status))
	}
	return &download{resp.Body, ctx, cancel, timer, limit}, offset, nil
}

// A download is a response's body with a timeout on every read.
type download struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.timer.Reset(d.limit)
	if err != nil && err != io.EOF && context.Cause(d.ctx) != nil {
		err = context.Cause(d.ctx)
	}
	return n, err
}

func (d *download) Close() error {
	d.timer.Stop()
	d.cancel(nil)
	return d.body.Close()
}

// getAll returns a file of at most limit bytes from the first base that has it.
func (g getter) getAll(ctx context.Context, bases []string, path string, limit int64, check func([]byte) error) ([]byte, error) {
	var tried []error
	for _, base := range bases {
		data, err := g.getOne(ctx, base+"/"+path, limit)
		if err == nil {
			err = check(data)
		}
		if err == nil {
			return data, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		tried = append(tried, fmt.Errorf("%s: %w", public(base), err))
	}
	return nil, errors.Join(tried...)
}

// public is a mirror's address without the user and the password that it may have.
// It doesn't show an address in which they could be anywhere.
func public(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.Contains(u.Path, "@") {
		return "a mirror whose address makes no sense"
	}
	u.User = nil
	return u.String()
}

func (g getter) getOne(ctx context.Context, address string, limit int64) ([]byte, error) {
	r, _, err := g.get(ctx, address, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("it sent more than the %d bytes expected", limit)
	}
	return data, nil
}
