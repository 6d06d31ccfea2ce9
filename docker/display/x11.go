package display

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// An xclient is a connection to an X server, with the few requests that we
// need: X Window System Protocol (X11R7), and the Security Extension, version 1.
type xclient struct {
	conn     net.Conn
	security byte // major opcode of the SECURITY extension, 0 if the server lacks it
}

// errRefused is in the chain of errors of an X server that doesn't admit the person.
var errRefused = errors.New("the X server refused")

// requestTimeout is how long an X server may take for all that we ask of it.
const requestTimeout = 5 * time.Second

var little = binary.LittleEndian

// resetTimeout is how long an X server may take for a reset. It hangs up on whoever
// comes during it.
const resetTimeout = time.Second

// dialX connects to an X server, authorizes itself with the cookie, which may be
// nil (a server can admit a user by uid), and makes the first requests, which may be
// nil, too. It tries again when the server hangs up: one whose last client has
// just left, a Probe for example, resets.
func dialX(ctx context.Context, network, address string, cookie []byte, first func(*xclient) error) (*xclient, error) {
	for end := time.Now().Add(resetTimeout); ; {
		c, err := dialOnce(ctx, network, address, cookie)
		if err == nil && first != nil {
			if err = first(c); err != nil {
				c.Close()
			}
		}
		if err == nil {
			return c, nil
		}
		hungUp := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
			errors.Is(err, syscall.EPIPE)
		if !hungUp || time.Now().After(end) {
			return nil, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func dialOnce(ctx context.Context, network, address string, cookie []byte) (*xclient, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &xclient{conn: conn}
	conn.SetDeadline(time.Now().Add(requestTimeout))
	if err := c.setup(cookie); err != nil {
		conn.Close()
		return nil, err
	}
	reply, err := c.ask(append([]byte{98, 0, 4, 0, 8, 0, 0, 0}, "SECURITY"...)) // QueryExtension
	if err != nil {
		conn.Close()
		return nil, err
	}
	if reply[8] != 0 {
		c.security = reply[9]
	}
	return c, nil
}

func (c *xclient) Close() error { return c.conn.Close() }

func (c *xclient) setup(cookie []byte) error {
	name := ""
	if cookie != nil {
		name = cookieName
	}
	m := []byte{'l', 0, 11, 0, 0, 0}
	m = little.AppendUint16(m, uint16(len(name)))
	m = little.AppendUint16(m, uint16(len(cookie)))
	m = append(m, 0, 0)
	m = pad(append(m, name...))
	m = pad(append(m, cookie...))
	if _, err := c.conn.Write(m); err != nil {
		return err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		return fmt.Errorf("the X server hung up: %w", err)
	}
	body := make([]byte, 4*int(little.Uint16(head[6:])))
	if _, err := io.ReadFull(c.conn, body); err != nil {
		return fmt.Errorf("the X server hung up: %w", err)
	}
	if head[0] == 1 {
		return nil
	}
	reason := body
	if n := int(head[1]); head[0] == 0 && n <= len(body) {
		reason = body[:n]
	}
	return fmt.Errorf("%w: %s", errRefused, strings.TrimRight(string(reason), "\x00\n "))
}

// ask sends a request and returns its reply, skipping events.
func (c *xclient) ask(request []byte) ([]byte, error) {
	if _, err := c.conn.Write(request); err != nil {
		return nil, err
	}
	for {
		reply := make([]byte, 32)
		if _, err := io.ReadFull(c.conn, reply); err != nil {
			return nil, err
		}
		switch reply[0] {
		case 0:
			return nil, fmt.Errorf("the X server answered with error %d", reply[1])
		case 1:
			more := int64(little.Uint32(reply[4:])) * 4
			if more > 1<<20 {
				return nil, errors.New("the X server's reply is too long to be one")
			}
			rest := make([]byte, more)
			_, err := io.ReadFull(c.conn, rest)
			return append(reply, rest...), err
		}
	}
}

// generate asks the server for a cookie of its own making that is as good as the
// user's, and doesn't expire. It returns its number, to revoke it.
func (c *xclient) generate() (id uint32, cookie []byte, err error) {
	const timeout, trust = 1, 2 // bits of the value mask
	m := []byte{c.security, 1, 0, 0}
	m = little.AppendUint16(m, uint16(len(cookieName)))
	m = little.AppendUint16(m, 0)
	m = little.AppendUint32(m, timeout|trust)
	m = pad(append(m, cookieName...))
	m = little.AppendUint32(m, 0) // never
	m = little.AppendUint32(m, 0) // trusted
	little.PutUint16(m[2:], uint16(len(m)/4))
	reply, err := c.ask(m)
	if err != nil {
		return 0, nil, err
	}
	n := int(little.Uint16(reply[12:]))
	if n == 0 || 32+n > len(reply) {
		return 0, nil, errors.New("the X server made no cookie")
	}
	return little.Uint32(reply[8:]), reply[32 : 32+n], nil
}

// revoke makes a cookie worthless and disconnects who came with it.
func (c *xclient) revoke(id uint32) error {
	m := little.AppendUint32([]byte{c.security, 2, 2, 0}, id)
	// A request with a reply after it tells that the server has got to it.
	_, err := c.ask(append(m, 43, 0, 1, 0)) // GetInputFocus
	return err
}

// keepOpen keeps the connection open until the function that it returns is called: an
// X server whose last client leaves resets, and forgets all cookies that it made.
func (c *xclient) keepOpen() (release func() error) {
	c.conn.SetDeadline(time.Time{})
	go io.Copy(io.Discard, c.conn) // what a server tells everybody, such as another keyboard
	return c.Close
}

// pad fills up to a multiple of four bytes.
func pad(m []byte) []byte {
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}
