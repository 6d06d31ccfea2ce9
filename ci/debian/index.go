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

// packages returns every package that the suites have for an architecture.
func (a archiveReader) packages(ctx context.Context, suites []Suite, architecture string, report Progress) ([]candidate, error) {
	var all []candidate
	for _, s := range suites {
		report.Update("Reading the index of %s", s.Name)
		some, err := a.suite(ctx, s, architecture)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func (a archiveReader) suite(ctx context.Context, s Suite, architecture string) ([]candidate, error) {
	bases := a.mirrors.bases(s.Archive, a.now)
	var files map[string]indexFile
	dist := "dists/" + s.Name
	_, err := a.getter.getAll(ctx, bases, dist+"/InRelease", maxRelease, func(data []byte) (err error) {
		files, err = a.release(data, s)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("no mirror has a good InRelease of suite %s. Name another mirror in %s:\n%w", s.Name, EnvMirror, err)
	}
	var all []candidate
	for _, component := range s.Components {
		name := component + "/binary-" + architecture + "/Packages.xz"
		if _, ok := files[name]; !ok {
			name = "updates/" + name // as debian-security lists them
		}
		file, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("suite %s has no component %s for %s", s.Name, component, architecture)
		}
		// By its hash: the name may have been given to a newer file meanwhile.
		dir := name[:strings.LastIndex(name, "/")]
		data, err := a.getter.getAll(ctx, bases, dist+"/"+dir+"/by-hash/SHA256/"+file.sum, file.size, file.check)
		if err != nil {
			return nil, fmt.Errorf("no mirror has the index %s of suite %s that its InRelease promises. Try again in an hour, or name another mirror in %s:\n%w", name, s.Name, EnvMirror, err)
		}
		some, err := readIndex(data, s.Archive, architecture)
		if err != nil {
			return nil, fmt.Errorf("reading the index %s of suite %s: %w", name, s.Name, err)
		}
		all = append(all, some...)
	}
	return all, nil
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

// release checks an InRelease file and returns the files that it promises.
// Source: https://wiki.debian.org/DebianRepository/Format.
func (a archiveReader) release(data []byte, s Suite) (map[string]indexFile, error) {
	block, rest := clearsign.Decode(data)
	if block == nil || len(bytes.TrimSpace(rest)) > 0 || !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, errUnsigned
	}
	config := &packet.Config{Time: func() time.Time { return a.now }}
	if _, err := openpgp.CheckDetachedSignature(a.keys, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, config); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsigned, err)
	}
	var p paragraph
	err := eachParagraph(bufio.NewReader(bytes.NewReader(block.Plaintext)), func(one paragraph) error {
		if p != nil {
			return errors.New("it has a second paragraph")
		}
		p = one
		return nil
	})
	if err != nil {
		return nil, err
	}
	if p["Codename"] != s.Name && p["Suite"] != s.Name {
		return nil, fmt.Errorf("%w: %q", errForeign, p["Codename"])
	}
	if until := p["Valid-Until"]; until != "" {
		end, err := time.Parse(time.RFC1123, until)
		if err != nil {
			return nil, fmt.Errorf("Valid-Until: %w", err)
		}
		if a.now.After(end) {
			return nil, fmt.Errorf("%w (on %s)", errExpired, until)
		}
	}
	files := map[string]indexFile{}
	for line := range strings.Lines(p["SHA256"]) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return nil, fmt.Errorf("%q is no line of its list of files", line)
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 || size > maxIndex || len(words[0]) != 2*sha256.Size {
			continue // of files that aren't read here
		}
		files[words[2]] = indexFile{size, words[0]}
	}
	return files, nil
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
