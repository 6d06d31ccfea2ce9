package debian

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
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
		keys, err := parseKeys(data)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

// parseKeys reads public keys, armored or not.
func parseKeys(data []byte) (openpgp.EntityList, error) {
	read := openpgp.ReadKeyRing
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP")) {
		read = openpgp.ReadArmoredKeyRing
	}
	keys, err := read(bytes.NewReader(data))
	if err == nil && len(keys) == 0 {
		err = errors.New("it has no public key")
	}
	return keys, err
}

// keysOf returns the keys that may sign a suite, and where they are from.
func (a archiveReader) keysOf(s Suite) (keys openpgp.EntityList, from string, err error) {
	if s.Keyring == "" {
		return a.keys, "the Debian archive", nil
	}
	data, err := os.ReadFile(filepath.Join(a.root, filepath.FromSlash(s.Keyring)))
	if err == nil {
		keys, err = parseKeys(data)
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading the keys of archive %s: %s: %w. "+
			"Put the public key there that the archive's own site names (.gpg or .asc), and compare its fingerprint", s.Archive, s.Keyring, err)
	}
	return keys, s.Keyring, nil
}

// The ways in which a release file is refused.
var (
	errUnsigned = errors.New("it isn't signed by a valid key")
	errExpired  = errors.New("it has expired: the mirror is out of date, or someone holds updates back")
	errForeign  = errors.New("it is of another suite")
	errOlder    = errors.New("it is older than the one that the lock was made from: the mirror is out of date, or someone holds updates back")
)

const (
	maxRelease = 4 << 20
	maxIndex   = 256 << 20
)

// A release is what the signed file of a suite says.
type release struct {
	text   []byte               // as it was sent
	name   string               // InRelease, or Release where the signature was apart
	signer *openpgp.Entity      // whose signature is good
	date   time.Time            // when the archive made it
	files  map[string]indexFile // that it promises, by path
	byHash bool                 // files can be had by their hash
	allIn  bool                 // packages of no architecture are in the index of each one
}

// fingerprint is that of the key which signed the release.
func (r release) fingerprint() string {
	return strings.ToUpper(hex.EncodeToString(r.signer.PrimaryKey.Fingerprint))
}

// owner is, in parentheses, who the key says that it belongs to.
func (r release) owner() string {
	if id := r.signer.PrimaryIdentity(); id != nil {
		return fmt.Sprintf(" (%q)", id.Name)
	}
	return ""
}

// An indexFile is a file that a release promises.
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
func (a archiveReader) release(data []byte, s Suite) (release, error) {
	block, rest := clearsign.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 ||
		!bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return release{}, errUnsigned
	}
	signer, err := a.signed(s, block.Bytes, block.ArmoredSignature.Body)
	if err != nil {
		return release{}, err
	}
	r, err := a.parseRelease(block.Plaintext, s)
	r.text, r.name, r.signer = data, "InRelease", signer
	return r, err
}

// detached checks a Release file with its Release.gpg and returns what it says.
func (a archiveReader) detached(data, signature []byte, s Suite) (release, error) {
	body := io.Reader(bytes.NewReader(signature))
	if bytes.HasPrefix(signature, []byte("-----BEGIN")) {
		block, err := armor.Decode(body)
		if err != nil {
			return release{}, fmt.Errorf("%w: %w", errUnsigned, err)
		}
		body = block.Body
	}
	signer, err := a.signed(s, data, body)
	if err != nil {
		return release{}, err
	}
	r, err := a.parseRelease(data, s)
	r.text, r.name, r.signer = data, "Release", signer
	return r, err
}

// parseRelease reads the text of a release.
// Source: https://wiki.debian.org/DebianRepository/Format.
func (a archiveReader) parseRelease(text []byte, s Suite) (r release, err error) {
	var p paragraph
	err = eachParagraph(bufio.NewReader(bytes.NewReader(text)), func(one paragraph) error {
		if p != nil {
			return errors.New("it has a second paragraph")
		}
		p = one
		return nil
	})
	if err != nil {
		return r, err
	}
	if !s.flat() && p["Codename"] != s.Name && p["Suite"] != s.Name {
		return r, fmt.Errorf("%w: %q", errForeign, p["Codename"])
	}
	if r.date, err = parseDate(p["Date"]); err != nil {
		return r, fmt.Errorf("reading its Date: %w", err)
	}
	if until := p["Valid-Until"]; until != "" {
		end, err := parseDate(until)
		if err != nil {
			return r, fmt.Errorf("Valid-Until: %w", err)
		}
		if a.now.After(end) {
			return r, fmt.Errorf("%w (on %s)", errExpired, until)
		}
	}
	r.byHash = p["Acquire-By-Hash"] == "yes"
	r.allIn = !slices.Contains(strings.Fields(p["Architectures"]), "all") || p["No-Support-for-Architecture-all"] == "Packages"
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
		r.files[strings.TrimPrefix(words[2], "./")] = indexFile{size, words[0]}
	}
	return r, nil
}

// parseDate reads a date of a release. Some archives' have no zero before the day.
func parseDate(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC1123, text)
	if err != nil {
		if other, oerr := time.Parse("Mon, _2 Jan 2006 15:04:05 -0700", text); oerr == nil {
			t, err = other, nil
		}
	}
	return t.UTC(), err
}

// maxSignatures is how many signatures of a release are looked at. Debian's have
// three; each costs a pass over the text.
const maxSignatures = 16

// signed returns the owner of the first signature that is good and by a key that may
// sign the suite and is valid. The openpgp package stops at the first by a known key:
// one that has expired would hide the others.
func (a archiveReader) signed(s Suite, text []byte, signatures io.Reader) (*openpgp.Entity, error) {
	keys, from, err := a.keysOf(s)
	if err != nil {
		return nil, err
	}
	config := &packet.Config{Time: func() time.Time { return a.now }}
	packets := packet.NewOpaqueReader(signatures)
	var failed []error
	for range maxSignatures {
		one, err := packets.Next()
		if err == nil {
			var signature bytes.Buffer
			var signer *openpgp.Entity
			if err = one.Serialize(&signature); err == nil {
				signer, err = openpgp.CheckDetachedSignature(keys, bytes.NewReader(text), &signature, config)
			}
			if err == nil {
				return signer, nil
			}
			failed = append(failed, err)
			continue
		}
		if err != io.EOF {
			failed = append(failed, err)
		}
		break
	}
	return nil, fmt.Errorf("%w of %s: %w", errUnsigned, from, errors.Join(failed...))
}
