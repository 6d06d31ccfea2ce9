package debian

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"pault.ag/go/debian/deb"
)

// keyFiles are the public keys of the Debian archive, from Debian's package
// debian-archive-keyring 2023.3+deb12u2.
//
//go:embed keys/*.gpg
var keyFiles embed.FS

// archiveKeys returns Debian's own keys.
func archiveKeys() (openpgp.EntityList, error) {
	names, err := fs.Glob(keyFiles, "keys/*.gpg")
	if err != nil {
		return nil, err
	}
	var all openpgp.EntityList
	for _, name := range names {
		data, err := keyFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		keys, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

// The ways in which an InRelease file is refused.
var (
	errUnsigned = errors.New("it isn't signed by a key of the Debian archive")
	errExpired  = errors.New("it has expired: the mirror is out of date, or someone holds updates back")
	errForeign  = errors.New("it is of another suite")
	errOlder    = errors.New("it is older than the one that the lock was made from: the mirror is out of date, or someone holds updates back")
)

// An archiveReader reads the signed indices of archives.
type archiveReader struct {
	getter  getter
	mirrors Mirrors
	keys    openpgp.EntityList
	now     time.Time
}

const (
	maxRelease = 4 << 20
	maxIndex   = 256 << 20
)

// packages returns every package that the suites have for an architecture, and
// the dates of the suites. A suite that is older than its date in known is refused.
func (a archiveReader) packages(
	ctx context.Context, suites []Suite, architecture string, known map[string]time.Time, report Progress,
) (all []candidate, dates map[string]time.Time, err error) {
	dates = map[string]time.Time{}
	for _, s := range suites {
		report.Update("Reading the index of %s", s.Name)
		some, date, err := a.suite(ctx, s, architecture, known[s.id()])
		if err != nil {
			return nil, nil, err
		}
		all = append(all, some...)
		dates[s.id()] = date
	}
	return all, dates, nil
}

func (a archiveReader) suite(
	ctx context.Context, s Suite, architecture string, known time.Time,
) (all []candidate, date time.Time, err error) {
	bases := a.mirrors.bases(s.Archive, a.now)
	var r release
	dist := "dists/" + s.Name
	_, err = a.getter.getAll(ctx, bases, dist+"/InRelease", maxRelease, func(data []byte) (err error) {
		if r, err = a.release(data, s); err == nil && r.date.Before(known) {
			err = fmt.Errorf("%w (it is of %s, the lock is of %s; to go back on purpose, remove the line \"date %s\" from the lock)",
				errOlder, r.date.Format(time.RFC1123), known.Format(time.RFC1123), s.id())
		}
		return err
	})
	if err != nil {
		return nil, date, fmt.Errorf("no mirror has a good InRelease of suite %s. Name another mirror in %s:\n%w", s.Name, EnvMirror, err)
	}
	for _, component := range s.Components {
		name := component + "/binary-" + architecture + "/Packages.xz"
		if _, ok := r.files[name]; !ok {
			name = "updates/" + name // as debian-security lists them
		}
		file, ok := r.files[name]
		if !ok {
			return nil, date, fmt.Errorf("suite %s has no component %s for %s", s.Name, component, architecture)
		}
		// By its hash: the name may have been given to a newer file meanwhile.
		dir := name[:strings.LastIndex(name, "/")]
		data, err := a.getter.getAll(ctx, bases, dist+"/"+dir+"/by-hash/SHA256/"+file.sum, file.size, file.check)
		if err != nil {
			return nil, date, fmt.Errorf("no mirror has the index %s of suite %s that its InRelease promises. "+
				"Try again in an hour, or name another mirror in %s:\n%w", name, s.Name, EnvMirror, err)
		}
		some, err := readIndex(data, s.Archive, architecture)
		if err != nil {
			return nil, date, fmt.Errorf("reading the index %s of suite %s: %w", name, s.Name, err)
		}
		all = append(all, some...)
	}
	return all, r.date, nil
}

// A release is what an InRelease file says.
type release struct {
	date  time.Time            // when the archive made it
	files map[string]indexFile // that it promises, by path
}

// An indexFile is a file that an InRelease promises.
type indexFile struct {
	size int64
	sum  string
}

func (f indexFile) check(data []byte) error {
	if sum := sha256.Sum256(data); int64(len(data)) != f.size || hex.EncodeToString(sum[:]) != f.sum {
		return errors.New("it sent another file than the one promised")
	}
	return nil
}

// release checks an InRelease file and returns what it says.
// Source: https://wiki.debian.org/DebianRepository/Format.
func (a archiveReader) release(data []byte, s Suite) (r release, err error) {
	block, rest := clearsign.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 ||
		!bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return r, errUnsigned
	}
	if err := a.signed(block.Bytes, block.ArmoredSignature.Body); err != nil {
		return r, err
	}
	var p paragraph
	err = eachParagraph(bufio.NewReader(bytes.NewReader(block.Plaintext)), func(one paragraph) error {
		if p != nil {
			return errors.New("it has a second paragraph")
		}
		p = one
		return nil
	})
	if err != nil {
		return r, err
	}
	if p["Codename"] != s.Name && p["Suite"] != s.Name {
		return r, fmt.Errorf("%w: %q", errForeign, p["Codename"])
	}
	if r.date, err = time.Parse(time.RFC1123, p["Date"]); err != nil {
		return r, fmt.Errorf("reading its Date: %w", err)
	}
	r.date = r.date.UTC()
	if until := p["Valid-Until"]; until != "" {
		end, err := time.Parse(time.RFC1123, until)
		if err != nil {
			return r, fmt.Errorf("Valid-Until: %w", err)
		}
		if a.now.After(end) {
			return r, fmt.Errorf("%w (on %s)", errExpired, until)
		}
	}
	r.files = map[string]indexFile{}
	for line := range strings.Lines(p["SHA256"]) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return r, fmt.Errorf("%q is no line of its list of files", line)
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 || size > maxIndex || len(words[0]) != 2*sha256.Size {
			continue // of files that aren't read here
		}
		r.files[words[2]] = indexFile{size, words[0]}
	}
	return r, nil
}

// maxSignatures is how many signatures of an InRelease are looked at. Debian's have
// three; each costs a pass over the text.
const maxSignatures = 16

// signed returns nil if any of the signatures is good and by a key that is known and
// valid. The openpgp package stops at the first by a known key: one that has
// expired would hide the others.
func (a archiveReader) signed(text []byte, signatures io.Reader) error {
	config := &packet.Config{Time: func() time.Time { return a.now }}
	packets := packet.NewOpaqueReader(signatures)
	var failed []error
	for range maxSignatures {
		one, err := packets.Next()
		if err == nil {
			var signature bytes.Buffer
			if err = one.Serialize(&signature); err == nil {
				_, err = openpgp.CheckDetachedSignature(a.keys, bytes.NewReader(text), &signature, config)
			}
			if err == nil {
				return nil
			}
			failed = append(failed, err)
			continue
		}
		if err != io.EOF {
			failed = append(failed, err)
		}
		break
	}
	return fmt.Errorf("%w: %w", errUnsigned, errors.Join(failed...))
}

// readIndex reads a Packages.xz.
func readIndex(data []byte, archive, architecture string) ([]candidate, error) {
	plainText, err := deb.DecompressorFor(".xz")(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer plainText.Close()
	var all []candidate
	err = eachParagraph(bufio.NewReaderSize(plainText, 1<<16), func(p paragraph) error {
		if !slices.Contains([]string{"all", architecture}, p["Architecture"]) {
			return nil
		}
		c, err := newCandidate(p, archive)
		if err != nil {
			return fmt.Errorf("package %s: %w", p["Package"], err)
		}
		all = append(all, c)
		return nil
	})
	if err == io.ErrUnexpectedEOF {
		err = errors.New("it is cut short")
	}
	return all, err
}
