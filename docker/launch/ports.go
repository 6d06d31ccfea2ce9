package launch

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/berthdev/berth/docker/daemon"
	"github.com/berthdev/berth/internal/usage"
)

// loopback is where ports are published unless an address is given: what listens in
// a container, such as a notebook, mostly trusts whoever reaches it.
const loopback = "127.0.0.1"

// parsePorts reads a list of ports to publish. network is as in Options.
func parsePorts(list, network string) ([]daemon.Port, error) {
	if list == "" {
		return nil, nil
	}
	switch network {
	case "host":
		return nil, fmt.Errorf("-p: %w: with -net=host the container's ports are the host's already. Leave one of the two out", usage.Err)
	case "none":
		return nil, fmt.Errorf("-p: %w: with -net=none the container has no network to be reached by. Leave one of the two out", usage.Err)
	}
	var ports []daemon.Port
	taken := map[string]bool{}
	for item := range strings.SplitSeq(list, ",") {
		p, ok := parsePort(strings.TrimSpace(item))
		if !ok {
			return nil, fmt.Errorf("-p: %w: %q isn't HOST:CONTAINER, ADDRESS:HOST:CONTAINER or PORT, with ports of 1 to 65535 "+
				"and perhaps /udp behind. For example: -p=8888, -p=8888:80, -p=0.0.0.0:8888:80", usage.Err, item)
		}
		at := showPort(p)
		if taken[at] {
			return nil, fmt.Errorf("-p: %w: %s of the host is in the list twice", usage.Err, at)
		}
		taken[at] = true
		ports = append(ports, p)
	}
	return ports, nil
}

// parsePort reads one item: [ADDRESS:]HOST:CONTAINER or PORT, each with /tcp or /udp
// behind or without. IPv6 addresses are in brackets.
func parsePort(item string) (p daemon.Port, ok bool) {
	numbers, protocol, given := strings.Cut(item, "/")
	if !given {
		protocol = "tcp"
	}
	p = daemon.Port{Address: loopback, Protocol: protocol}
	inside := numbers
	if outside, last, two := cutLast(numbers); two {
		inside = last
		if address, port, three := cutLast(outside); three {
			// IPv6 must be in brackets, or its colons would separate.
			host, _, err := net.SplitHostPort(address + ":0")
			a, aerr := netip.ParseAddr(host)
			if err != nil || aerr != nil || a.Zone() != "" {
				return p, false
			}
			p.Address, outside = a.String(), port
		}
		numbers = outside
	}
	var okHost, okInside bool
	p.Host, okHost = portNumber(numbers)
	p.Container, okInside = portNumber(inside)
	return p, okHost && okInside && (protocol == "tcp" || protocol == "udp")
}

// cutLast cuts a text at its last colon.
func cutLast(s string) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func portNumber(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// publishedAt is the address and port of the host, as for docker run.
func publishedAt(p daemon.Port) string { return net.JoinHostPort(p.Address, strconv.Itoa(int(p.Host))) }

// showPort is a published port for a person.
func showPort(p daemon.Port) string {
	if p.Protocol == "tcp" {
		return publishedAt(p)
	}
	return publishedAt(p) + "/" + p.Protocol
}
