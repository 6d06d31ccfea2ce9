package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dagger.io/dagger"

	"github.com/berthdev/berth/internal/process"
)

// A session is Dagger's command line at work: it serves the API on a port of
// the loopback, with a secret of its own, and speaks to the engine. The SDK would
// start one, too, but finds it by the process's environment alone, and waits five
// minutes for one whose engine is dead.
type session struct {
	client http.Client
	token  string
	end    context.CancelFunc
	ended  chan struct{} // closed when the process is gone
}

// closeTimeout is how long a session may take to tell its engine that it ends. It
// leaves time to clean up: mage gives a target that is interrupted 5 s in all.
const closeTimeout = 2 * time.Second

// openSession starts a command line and returns the client to it. The session
// lasts until the client's Close, or until ctx ends. Without a host the
// environment says where the engine is.
func openSession(ctx context.Context, cli, host string, log io.Writer) (*dagger.Client, error) {
	cli, err := filepath.Abs(cli)
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(ctx)
	var said process.Tail
	cmd := exec.CommandContext(ctx, cli, "session", "--label", "dagger.io/sdk.name:go",
		"--label", "dagger.io/sdk.version:"+strings.TrimPrefix(Version, "v"))
	// It reads what the checkout's git knows, for its makers' statistics, and warns
	// where it can't make sense of that. There is none here.
	cmd.Dir = string(filepath.Separator)
	// It prefers a session to an engine, and takes an empty variable for one.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, envSessionPort+"=") })
	cmd.Env = append(cmd.Env, "DO_NOT_TRACK=1", "DAGGER_NO_NAG=1")
	if host != "" {
		cmd.Env = append(cmd.Env, envRunnerHost+"="+host)
	}
	cmd.Stderr = &said
	if log != nil {
		cmd.Stderr = io.MultiWriter(&said, log)
	}
	output, w := io.Pipe()
	cmd.Stdout = w
	input, err := cmd.StdinPipe()
	if err != nil {
		end()
		return nil, err
	}
	// It ends, in its own time, when its input does.
	cmd.Cancel = input.Close
	cmd.WaitDelay = closeTimeout
	s := &session{end: end, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		w.CloseWithError(process.RunTied(cmd, syscall.SIGKILL))
	}()
	lines := bufio.NewReader(output)
	line, err := lines.ReadBytes('\n')
	var at struct {
		Port  int    `json:"port"`
		Token string `json:"session_token"`
	}
	if err == nil {
		err = json.Unmarshal(line, &at)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("no session of Dagger's command line %s: %w\n%s", cli, err, said.String())
	}
	go io.Copy(io.Discard, lines)
	s.token = at.Token
	s.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(at.Port)))
	}}
	return dagger.Connect(ctx, dagger.WithConn(s))
}

// Do sends a request to the API.
func (s *session) Do(r *http.Request) (*http.Response, error) {
	r.SetBasicAuth(s.token, "")
	return s.client.Do(r)
}

// Host is the API's address in URLs, which Do doesn't look at.
func (s *session) Host() string { return "dagger" }

// Close ends the session, and waits for that.
func (s *session) Close() error {
	s.end()
	<-s.ended
	return nil
}
