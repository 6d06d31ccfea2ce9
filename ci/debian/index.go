package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sync/errgroup"
	"pault.ag/go/debian/deb"
	"pault.ag/go/debian/version"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/download"
)

// An archiveReader reads the signed indices of archives.
type archiveReader struct {
	getter    download.Getter
	mirrors   Mirrors
	snapshots string             // URL of the snapshot service
	keys      openpgp.EntityList // of the Debian archive
	root      string             // of the checkout, below which the keyrings of others lie
	now       time.Time
	cache     cache.Dir // indices are kept in its folder indices, by their hash
	report    Progress
}

// A source is a suite with its indices, fetched and verified.
type source struct {
	Suite
	release release
	indices []index
}

// An index is a list of packages: a plain Packages file in the cache.
type index struct {
	component string // "" of a flat archive
	folder    string // below the component, such as binary-amd64; "" of a flat archive
	path      string
}

// sources returns the suites with their indices for an architecture. A suite that is
// older than its date in known is refused.
func (a archiveReader) sources(
	ctx context.Context, suites []Suite, architecture string, known map[string]time.Time,
) ([]source, error) {
	all := make([]source, len(suites))
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(parallel)
	for i, s := range suites {
		work.Go(func() (err error) {
			all[i], err = a.source(ctx, s, architecture, known[s.id()])
			return err
		})
	}
	return all, work.Wait()
}

func (a archiveReader) source(ctx context.Context, s Suite, architecture string, known time.Time) (source, error) {
	a.report.Update("Reading the index of %s", s.Name)
	if _, _, err := a.keysOf(s); err != nil {
		return source{}, err // no mirror's fault
	}
	bases := a.bases(s.Archive, s.URL, a.now)
	r, err := a.newestRelease(ctx, bases, s, known)
	if err != nil {
		return source{}, s.explain(err)
	}
	src := source{Suite: s, release: r}
	if s.flat() {
		one, err := a.index(ctx, bases, r, s, "")
		src.indices = []index{one}
		return src, err
	}
	for _, component := range s.Components {
		folders := []string{"binary-" + architecture}
		if _, _, there := r.find(component + "/binary-all"); there && !r.allIn {
			folders = append(folders, "binary-all")
		}
		for _, folder := range folders {
			one, err := a.index(ctx, bases, r, s, component+"/"+folder)
			if err != nil {
				return source{}, err
			}
			one.component, one.folder = component, folder
			src.indices = append(src.indices, one)
		}
	}
	return src, nil
}

// explain says what to do about a suite that no mirror has a good release of.
func (s Suite) explain(err error) error {
	if s.URL != "" {
		return fmt.Errorf("archive %s (%s) has no good InRelease for suite %s. If it has a new key, compare its fingerprint with what the "+
			"archive's own site says, and put it into %s:\n%w", s.Archive, s.URL, s.Name, s.Keyring, err)
	}
	return fmt.Errorf("no mirror has a good InRelease of suite %s. Name another mirror in %s:\n%w", s.Name, EnvMirror, err)
}

// newestRelease returns the release of the first base that has a good one, which isn't
// older than known.
func (a archiveReader) newestRelease(ctx context.Context, bases []string, s Suite, known time.Time) (r release, err error) {
	notOlder := func() error {
		if r.date.Before(known) {
			return fmt.Errorf("%w (it is of %s, the lock is of %s; to go back on purpose, remove the line \"date %s\" from the lock)",
				errOlder, r.date.Format(time.RFC1123), known.Format(time.RFC1123), s.id())
		}
		return nil
	}
	_, err = a.getter.All(ctx, bases, path.Join(s.folder(), "InRelease"), maxRelease, func(data []byte) (err error) {
		if r, err = a.release(data, s); err == nil {
			err = notOlder()
		}
		return err
	})
	if s.URL == "" || !errors.Is(err, download.ErrNotThere) {
		return r, err
	}
	// Older tools sign it apart.
	signature, gerr := a.getter.All(ctx, bases, path.Join(s.folder(), "Release.gpg"), maxRelease, func([]byte) error { return nil })
	if gerr != nil {
		return r, errors.Join(err, gerr)
	}
	_, gerr = a.getter.All(ctx, bases, path.Join(s.folder(), "Release"), maxRelease, func(data []byte) (err error) {
		if r, err = a.detached(data, signature, s); err == nil {
			err = notOlder()
		}
		return err
	})
	return r, gerr
}

// find returns the name below the suite's folder of the list of packages in a folder,
// and what the release promises of it.
func (r release) find(folder string) (name string, file indexFile, there bool) {
	for _, folder := range []string{folder, "updates/" + folder} { // as debian-security lists them
		for _, kind := range []string{".xz", ".gz", ""} {
			name := path.Join(folder, "Packages"+kind)
			if file, there := r.files[name]; there {
				return name, file, true
			}
		}
	}
	return "", indexFile{}, false
}

// index brings a list of packages to the cache.
func (a archiveReader) index(ctx context.Context, bases []string, r release, s Suite, folder string) (index, error) {
	name, file, there := r.find(folder)
	if !there {
		return index{}, fmt.Errorf("suite %s has no component and architecture %q", s.Name, folder)
	}
	entry := a.cache.Path("indices", file.sum)
	if kept, err := cache.Find(entry); kept != "" || err != nil {
		return index{path: kept}, err
	}
	where := path.Join(s.folder(), name)
	if r.byHash { // the name may have been given to a newer file meanwhile
		where = path.Join(s.folder(), path.Dir(name), "by-hash/SHA256", file.sum)
	}
	data, err := a.getter.All(ctx, bases, where, file.size, file.check)
	if err != nil {
		return index{}, fmt.Errorf("no mirror has the index %s of suite %s that its InRelease promises. "+
			"Try again in an hour, or name another mirror in %s:\n%w", name, s.Name, EnvMirror, err)
	}
	temp, remove, err := a.cache.Temp("index")
	if err != nil {
		return index{}, err
	}
	defer remove()
	kept, err := cache.Keep(entry, temp, 0o644, func(w io.Writer) error { return unpackIndex(w, data, path.Ext(name)) })
	if err != nil {
		return index{}, fmt.Errorf("reading the index %s of suite %s: %w", name, s.Name, err)
	}
	return index{path: kept}, nil
}

// maxUnpacked is how large an index may be without its compression: twenty times
// Debian's largest.
const maxUnpacked = 1 << 30

func unpackIndex(w io.Writer, data []byte, extension string) error {
	plain, err := deb.DecompressorFor(extension)(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer plain.Close()
	n, err := io.Copy(w, io.LimitReader(plain, maxUnpacked+1))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is cut short")
	} else if err == nil && n > maxUnpacked {
		return fmt.Errorf("it has more than %d bytes", maxUnpacked)
	}
	return err
}

// eachPackage calls do with the paragraphs of an index for which wanted, which sees
// their text, returns true. To parse them all would take seconds.
func (i index) eachPackage(wanted func(text []byte) bool, do func(paragraph) error) error {
	data, err := os.ReadFile(i.path)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		text, rest, _ := bytes.Cut(data, []byte("\n\n"))
		data = rest
		if !wanted(text) {
			continue
		}
		if err := eachParagraph(bufio.NewReader(bytes.NewReader(text)), do); err != nil {
			return fmt.Errorf("reading an index: %w", err)
		}
	}
	return nil
}

// fieldOf is the value of a field of one line in the text of a paragraph.
func fieldOf(text []byte, name string) string {
	for {
		i := bytes.Index(text, []byte(name+":"))
		if i < 0 {
			return ""
		}
		if i == 0 || text[i-1] == '\n' {
			line, _, _ := bytes.Cut(text[i+len(name)+1:], []byte("\n"))
			return string(bytes.TrimSpace(line))
		}
		text = text[i+1:]
	}
}

// newPackage is the package of a paragraph.
func newPackage(p paragraph, archive string) (Package, error) {
	size, err := strconv.ParseInt(p["Size"], 10, 64)
	if err != nil {
		return Package{}, fmt.Errorf("package %s: its size: %w", p["Package"], err)
	}
	one := Package{
		Name: p["Package"], Version: p["Version"], Architecture: p["Architecture"],
		Archive: archive, File: path.Clean(strings.TrimSpace(p["Filename"])), Size: size, SHA256: p["SHA256"],
	}
	if err := one.check(); err != nil {
		return Package{}, fmt.Errorf("package %s: %w", p["Package"], err)
	}
	return one, nil
}

// nearest is, of the packages on offer under the locked one's name, that with the lowest
// version that isn't below the locked one's, else the highest.
func nearest(offers []Package, locked Package) (Package, error) {
	want, err := version.Parse(locked.Version)
	if err != nil {
		return Package{}, err
	}
	var best *Package
	var bestVersion version.Version
	for i := range offers {
		c := &offers[i]
		if c.Name != locked.Name {
			continue
		}
		v, err := version.Parse(c.Version)
		if err != nil {
			return Package{}, err
		}
		above, bestAbove := version.Compare(v, want) >= 0, best != nil && version.Compare(bestVersion, want) >= 0
		higher := best != nil && version.Compare(v, bestVersion) > 0
		if best == nil || above && !bestAbove || above == bestAbove && higher != above {
			best, bestVersion = c, v
		}
	}
	if best == nil {
		err := fmt.Errorf("%s is %w, and no suite of the lock has another version", locked, errGone)
		return Package{}, advice.With(err, "Type\n\t%s pin", advice.Berth)
	}
	return *best, nil
}
