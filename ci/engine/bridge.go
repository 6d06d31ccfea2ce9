package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/cache"
)

// A bridge leads from a Unix socket on this machine to the engine's own in its
// container. Where the engine was given a folder of this machine for its socket,
// it goes there, else through Docker's API, which has a fifth of the speed.
// Dagger's own way needs the docker command, and goes to the daemon of that
// command's context instead of DOCKER_HOST's; a port would let every user of the
// machine in.
type bridge struct {
	docker    *daemon.Client
	container string
	direct    string
	listener  net.Listener
	cancel    context.CancelFunc
	work      sync.WaitGroup
	remove    func()
}

// openBridge listens on a socket in a folder that only its owner may enter. direct is
// the path of the engine's own socket if it is on this machine.
func openBridge(docker *daemon.Client, dir cache.Dir, direct, container string) (*bridge, error) {
	folder, remove, err := dir.Temp("socket")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		remove()
		return nil, fmt.Errorf("making a socket in the cache folder: %w. Name a folder with a short path on a local disk in BERTH_CACHE", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bridge{
		docker: docker, container: container, direct: direct,
		listener: listener, cancel: cancel, remove: remove,
	}
	b.work.Go(func() { b.serve(ctx) })
	b.work.Go(func() { b.markInUse(ctx) })
	return b, nil
}

// socketFolder is the folder of this machine that the engine gets for its socket.
// Each daemon may have an engine of that name.
func (p *provider) socketFolder() string {
	if p.Ephemeral {
		return filepath.Join(p.scope.Path(), "socket")
	}
	sum := sha256.Sum256([]byte(p.docker.Host()))
	return p.Cache.Path("engine", "sockets", p.name+"-"+hex.EncodeToString(sum[:4]))
}

// markInUse runs a command in the container that ends with this process: by such
// commands others tell that an engine is in use.
func (b *bridge) markInUse(ctx context.Context) {
	process, err := b.docker.Exec(ctx, b.container, "cat")
	if err != nil {
		return // the connections will say why
	}
	defer process.Close()
	stop := context.AfterFunc(ctx, func() { process.Close() })
	defer stop()
	io.Copy(io.Discard, process)
}

// host is the bridge's address as Dagger writes it.
func (b *bridge) host() string { return "unix://" + b.listener.Addr().String() }

// Close ends the bridge and every connection over it.
func (b *bridge) Close() error {
	err := b.listener.Close()
	b.cancel()
	b.work.Wait()
	b.remove()
	return err
}

func (b *bridge) serve(ctx context.Context) {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return // closed
		}
		b.work.Go(func() { b.forward(ctx, conn.(*net.UnixConn)) })
	}
}

// A stream is a connection to an engine, either way.
type stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// connect reaches the engine's socket, directly if it can.
func (b *bridge) connect(ctx context.Context) (stream, error) {
	if conn, err := net.Dial("unix", b.direct); err == nil {
		return conn.(*net.UnixConn), nil
	}
	return dialStdio(ctx, b.docker, b.container)
}

// forward copies between conn and the engine until either ends or ctx does. Its errors
// show at the other end as a connection that breaks, which Dagger reports.
func (b *bridge) forward(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	process, err := b.connect(ctx)
	if err != nil {
		return
	}
	defer process.Close()
	stop := context.AfterFunc(ctx, func() {
		conn.Close()
		process.Close()
	})
	defer stop()
	go func() {
		io.Copy(process, conn)
		process.CloseWrite()
	}()
	io.Copy(conn, process)
}

// awaitAnswer waits until the engine in a container answers on its socket. The
// command line would, too, but with pauses that grow to seconds.
func awaitAnswer(ctx context.Context, docker *daemon.Client, container string) error {
	for {
		answered, err := answers(ctx, func(ctx context.Context) (stream, error) { return dialStdio(ctx, docker, container) })
		if answered || err != nil {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// answers reports whether the engine sends its part of an HTTP/2 connection's
// beginning (RFC 9113, section 3.4) in exchange for ours. It fails if connect does.
func answers(ctx context.Context, connect func(context.Context) (stream, error)) (bool, error) {
	conn, err := connect(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // a frame of that type, empty
	if _, err := io.WriteString(conn, preface+settings); err != nil {
		return false, nil
	}
	_, err = io.ReadFull(conn, make([]byte, len(settings)))
	return err == nil, nil
}

// dialStdio runs the program in the engine's image that connects its standard
// streams to the engine's socket.
func dialStdio(ctx context.Context, docker *daemon.Client, container string) (*daemon.Process, error) {
	return docker.Exec(ctx, container, "buildctl", "dial-stdio")
}
