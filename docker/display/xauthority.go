package display

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Families of addresses in an Xauthority file (libXau, Xauth.h).
const (
	familyLocal = 0x0100 // the address is a host name
	familyWild  = 0xffff // any host, by any way
)

// cookieName is the one authorization protocol that X servers still speak.
const cookieName = "MIT-MAGIC-COOKIE-1"

// An entry is one authorization in an Xauthority file.
type entry struct {
	family  uint16
	address string
	number  string // of the display; "" is any
	name    string // of the protocol
	data    []byte
}

var errXauthority = errors.New("not an Xauthority file")

// parseXauthority reads a file of entries: a family, then four strings, each
// after its length; all numbers are 16 bits, big-endian.
func parseXauthority(file []byte) ([]entry, error) {
	var entries []entry
	take := func() ([]byte, bool) {
		if len(file) < 2 {
			return nil, false
		}
		n := 2 + int(binary.BigEndian.Uint16(file))
		if len(file) < n {
			return nil, false
		}
		s := file[2:n]
		file = file[n:]
		return s, true
	}
	for len(file) > 0 {
		if len(file) < 2 {
			return entries, errXauthority
		}
		e := entry{family: binary.BigEndian.Uint16(file)}
		file = file[2:]
		var parts [4][]byte
		for i := range parts {
			var ok bool
			if parts[i], ok = take(); !ok {
				return entries, fmt.Errorf("%w: it ends within entry %d", errXauthority, len(entries)+1)
			}
		}
		e.address, e.number, e.name, e.data = string(parts[0]), string(parts[1]), string(parts[2]), parts[3]
		entries = append(entries, e)
	}
	return entries, nil
}

// append appends the entry in the file's format. Its strings are shorter than
// 64 KiB.
func (e entry) append(file []byte) []byte {
	file = binary.BigEndian.AppendUint16(file, e.family)
	for _, s := range []string{e.address, e.number, e.name, string(e.data)} {
		file = binary.BigEndian.AppendUint16(file, uint16(len(s)))
		file = append(file, s...)
	}
	return file
}

// cookieFor returns the first cookie for a display of this machine, nil if there
// is none.
func cookieFor(entries []entry, hostname, number string) []byte {
	for _, e := range entries {
		here := e.family == familyWild || e.family == familyLocal && e.address == hostname
		if here && (e.number == "" || e.number == number) && e.name == cookieName {
			return e.data
		}
	}
	return nil
}

// wildcard is an Xauthority file with a cookie that a client finds whatever its
// host's name is: a container's differs from the X server's.
func wildcard(number string, cookie []byte) []byte {
	return entry{family: familyWild, number: number, name: cookieName, data: cookie}.append(nil)
}
