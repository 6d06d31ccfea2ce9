// Package download fetches files from mirrors: with a limit on silence, from where an
// earlier try ended, and checked by size and SHA-256. What it says of a mirror bears no
// password.
package download

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// stallTimeout is how long a mirror may send nothing before the next one is asked.
const stallTimeout = 20 * time.Second

// ErrNotThere is in the chain of the error of a mirror that answered that it
// doesn't have a file.
var ErrNotThere = errors.New("not there")

// ErrUnreachable is in the chain of the error of a mirror that didn't answer.
var ErrUnreachable = errors.New("no answer")

// errPastEnd is in the chain of the error of a mirror whose file ends before an offset, or there.
var errPastEnd = errors.New("it has no more")

// A Getter downloads files. The zero value has the usual timeouts.
type Getter struct {
	Client *http.Client  // http.DefaultClient if nil
	Stall  time.Duration // how long a mirror may send nothing; the usual if 0
	Accept string        // the header of that name; none if empty
}

// Get returns the file at address from the given offset on, and the offset that the
// mirror agreed to (0 where it can't resume). Reads fail when nothing comes for
// too long.
func (g Getter) Get(ctx context.Context, address string, offset int64) (io.ReadCloser, int64, error) {
	client, limit := g.Client, g.Stall
	if client == nil {
		client = http.DefaultClient
	}
	if limit == 0 {
		limit = stallTimeout
	}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("%w: it sent nothing for %s", ErrUnreachable, limit))
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
	if g.Accept != "" {
		req.Header.Set("Accept", g.Accept)
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
			err = u.Err // without the address: Public names the mirror
		}
		return fail(fmt.Errorf("%w: %w", ErrUnreachable, err))
	}
	switch resp.StatusCode {
	case http.StatusOK:
		offset = 0
	case http.StatusPartialContent:
	default:
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
			return fail(fmt.Errorf("%w: %s", ErrNotThere, resp.Status))
		}
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
			return fail(fmt.Errorf("%w: %s", errPastEnd, resp.Status))
		}
		return fail(fmt.Errorf("it answered %s", resp.Status))
	}
	return &body{resp.Body, ctx, cancel, timer, limit}, offset, nil
}

// A body is a response's body with a timeout on every read.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.limit)
	if err != nil && err != io.EOF && context.Cause(b.ctx) != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// All returns a file of at most limit bytes from the first base that has it.
func (g Getter) All(ctx context.Context, bases []string, path string, limit int64, check func([]byte) error) ([]byte, error) {
	var tried []error
	for _, base := range bases {
		data, err := g.one(ctx, base+"/"+path, limit)
		if err == nil {
			err = check(data)
		}
		if err == nil {
			return data, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		tried = append(tried, fmt.Errorf("%s: %w", Public(base), err))
	}
	return nil, errors.Join(tried...)
}

// Public is a mirror's address without the user and the password that it may have.
// It doesn't show an address in which they could be anywhere.
func Public(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.Contains(u.Path, "@") {
		return "a mirror whose address makes no sense"
	}
	u.User = nil
	return u.String()
}

func (g Getter) one(ctx context.Context, address string, limit int64) ([]byte, error) {
	r, _, err := g.Get(ctx, address, 0)
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

// A File is what a file has to be.
type File struct {
	Size   int64  // bytes; 0 if it isn't known
	SHA256 string // hex; empty if it isn't known
}

// maxUnknown is how many bytes a file of unknown size may have.
const maxUnknown = 32 << 30

// Check returns an error unless the file of that path is what it has to be.
func (f File) Check(path string) error {
	is, err := FileAt(path)
	if err != nil {
		return err
	}
	if f.Size > 0 && is.Size != f.Size {
		return fmt.Errorf("it sent %d bytes of %d", is.Size, f.Size)
	}
	if f.SHA256 != "" && is.SHA256 != f.SHA256 {
		return fmt.Errorf("it sent another file: SHA-256 %s, locked is %s", is.SHA256, f.SHA256)
	}
	return nil
}

// FileAt returns what the file of that path is.
func FileAt(path string) (File, error) {
	file, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer file.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	return File{n, hex.EncodeToString(sum.Sum(nil))}, err
}

// File brings the file at address to a path, and checks it. If an earlier call was cut
// off there, this one goes on where that ended, provided that the SHA-256 is known. A
// wrong file doesn't stay. progress is told how many bytes came, and takes them back
// with a negative number where they came for nothing.
func (g Getter) File(ctx context.Context, address, path string, want File, progress func(int64)) error {
	resumed, err := g.file(ctx, address, path, want, progress)
	if resumed && err != nil { // perhaps the earlier part was wrong
		_, err = g.file(ctx, address, path, want, progress)
	}
	return err
}

// file is one try. It reports whether the file came out wrong, or didn't go on, after its
// beginning was there already.
func (g Getter) file(ctx context.Context, address, path string, want File, progress func(int64)) (resumed bool, err error) {
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, err
	}
	defer out.Close()
	have, err := out.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	limit := want.Size
	if limit == 0 {
		limit = maxUnknown
	}
	if have >= limit || want.SHA256 == "" {
		have = 0
	}
	body, from, err := g.Get(ctx, address, have)
	if errors.Is(err, errPastEnd) { // of unknown size, it may have come whole the last time
		if want.Check(path) == nil {
			return false, nil
		}
		os.Remove(path)
		return true, err
	}
	if err != nil {
		if have == 0 {
			os.Remove(path)
		}
		return false, err
	}
	defer body.Close()
	if err := out.Truncate(from); err != nil {
		return false, err
	}
	if _, err := out.Seek(from, io.SeekStart); err != nil {
		return false, err
	}
	counted := &meter{r: io.LimitReader(body, limit-from+1), progress: progress}
	if _, err := io.Copy(out, counted); err != nil {
		progress(-counted.n)
		return false, err
	}
	if err := out.Close(); err != nil {
		return false, err
	}
	if err := want.Check(path); err != nil {
		progress(-counted.n)
		os.Remove(path)
		return from > 0, err
	}
	return false, nil
}

// A meter tells what is read through it.
type meter struct {
	r        io.Reader
	progress func(int64)
	n        int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.progress(int64(n))
	return n, err
}
