// Package golang runs the go command, and packs what compiles Go programs where
// there is neither Go nor a network: the toolchain of a lock, and the modules
// that the programs import. A stage of a Dockerfile starts from that. The package
// knows nothing of Docker and engines.
package golang

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/dirhash"

	"github.com/berthdev/berth/internal/advice"
	"github.com/berthdev/berth/internal/cache"
	"github.com/berthdev/berth/internal/progress"
)

// Recipe changes whenever the same toolchain and modules give another archive.
const Recipe = "1"

// The archive has the toolchain in goroot, and beside it the modules in the
// layout of a GOPROXY (https://go.dev/ref/mod#goproxy-protocol).
const (
	goroot = "usr/local/go/"
	proxy  = "usr/local/go-modules/"
)

// A Program is what the archive is for: packages of the module in Root, compiled
// for linux/amd64.
type Program struct {
	Root      string
	Packages  []string // as go build takes them
	Tests     bool     // with what their tests import
	Cgo       []string // with what they import when cgo compiles them with these build tags
	Toolchain Toolchain
}

// A module is what `go mod download -json` says of one.
type module struct {
	Path, Version    string
	Error            string
	Info, GoMod, Zip string
	Sum              string
}

// File makes the archive, unless it is an entry of the folder already (see
// cache.Keep), and returns its path. It is compressed by Zstandard, and the same bit
// for bit for the same program.
func File(ctx context.Context, p Program, dir cache.Dir, folder string, report *progress.Reporter) (path string, err error) {
	temp, remove, err := dir.Temp("golang")
	if err != nil {
		return "", err
	}
	defer remove()
	modules, err := p.modules(ctx, temp, report)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, Recipe, p.Toolchain)
	for _, m := range modules {
		fmt.Fprintln(h, m.Path, m.Version, m.Sum)
	}
	name := filepath.Join(folder, hex.EncodeToString(h.Sum(nil))+".tar.zst")
	if path, err = cache.Find(name); path != "" || err != nil {
		return path, err
	}
	report.Update("Fetching Go %s", p.Toolchain.Version)
	zip, err := p.Toolchain.download(ctx, temp)
	if err != nil {
		return "", err
	}
	report.Update("Packing Go %s and %d modules", p.Toolchain.Version, len(modules))
	path, err = cache.Keep(name, temp, 0o644, func(w io.Writer) error {
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return err
		}
		if err := write(ctx, z, zip, modules); err != nil {
			z.Close()
			return err
		}
		return z.Close()
	})
	if err != nil {
		return "", fmt.Errorf("packing Go and its modules: %w", err)
	}
	return path, nil
}

// modules lists the modules that the packages import something from, and
// downloads them.
func (p Program) modules(ctx context.Context, temp string, report *progress.Reporter) ([]module, error) {
	var list bytes.Buffer
	args := []string{"list", "-deps", "-test=" + strconv.FormatBool(p.Tests),
		"-f", "{{with .Module}}{{with or .Replace .}}{{if .Version}}{{.Path}}@{{.Version}}{{end}}{{end}}{{end}}"}
	c := Command{
		Dir: p.Root, Temp: temp, OS: "linux", Arch: "amd64", Output: &list, Args: append(args, p.Packages...),
		Complaint: func(line string) {
			if m, ok := strings.CutPrefix(line, "go: downloading "); ok {
				report.Update("Fetching module %s", m)
			}
		},
	}
	if len(p.Cgo) > 0 {
		// Files without cgo import nothing that those with it don't.
		c.Env = []string{"CGO_ENABLED=1"}
		c.Args = slices.Insert(c.Args, 1, "-tags="+strings.Join(p.Cgo, ","))
	}
	if err := c.Run(ctx); err != nil {
		return nil, fmt.Errorf("listing what %s imports: %w", strings.Join(p.Packages, ", "), err)
	}
	names := strings.Fields(list.String())
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return nil, nil // else go would download all that go.mod names
	}
	return download(ctx, p.Root, temp, nil, names...)
}

// download brings modules into Go's own cache of them, which checks them against
// the go.sum in dir or the checksum database. env is added to the caller's.
func download(ctx context.Context, dir, temp string, env []string, names ...string) ([]module, error) {
	var out bytes.Buffer
	c := Command{
		Dir: dir, Temp: temp, OS: "linux", Arch: "amd64", Env: env, Output: &out,
		Args: append([]string{"mod", "download", "-json"}, names...),
	}
	failed := c.Run(ctx)
	var modules []module
	for d := json.NewDecoder(&out); ; {
		var m module
		if err := d.Decode(&m); err == io.EOF {
			break
		} else if err != nil {
			return nil, errors.Join(failed, fmt.Errorf("reading what go mod download says: %w", err))
		}
		if m.Error != "" {
			return nil, fmt.Errorf("downloading %s %s: %s", m.Path, m.Version, m.Error)
		}
		modules = append(modules, m)
	}
	return modules, failed
}

// download returns the path of the toolchain's zip file, checked against the lock.
func (t Toolchain) download(ctx context.Context, temp string) (zip string, err error) {
	// Outside of any module, or go would hold it against that one's go.mod. The
	// checksum database may be out of reach, and isn't needed: the lock has the checksum.
	modules, err := download(ctx, temp, temp, unchecked, t.module())
	if err != nil {
		return "", err
	}
	zip = modules[0].Zip
	sum, err := dirhash.HashZip(zip, dirhash.Hash1)
	if err != nil {
		return "", err
	}
	if sum != t.Sum {
		return "", fmt.Errorf("%s has the checksum %s, but %s is locked: it isn't what was pinned. Type\n\tgo clean -modcache\nand try again; "+
			"if that doesn't help, the server gives another file than it once did", t.module(), sum, t.Sum)
	}
	return zip, nil
}

// Newest returns the newest release of the line that a version such as "1.26.0"
// is of, with the checksum that Go's checksum database has, whatever the caller's
// environment says of that. temp is a folder for temporary files, outside of any module.
func Newest(ctx context.Context, version, temp string, report *progress.Reporter) (Toolchain, error) {
	var out bytes.Buffer
	c := Command{Dir: temp, Temp: temp, OS: "linux", Arch: "amd64", Output: &out,
		Args: []string{"list", "-m", "-versions", "-f", "{{join .Versions \" \"}}", "go"}}
	if err := c.Run(ctx); err != nil {
		return Toolchain{}, fmt.Errorf("asking which releases of Go there are: %w", err)
	}
	t := Toolchain{Version: newest(strings.Fields(out.String()), version)}
	if t.Version == "" {
		return Toolchain{}, fmt.Errorf("there is no release of Go %s", version)
	}
	var sumDB bytes.Buffer
	c = Command{Dir: temp, Temp: temp, OS: "linux", Arch: "amd64", Output: &sumDB, Args: []string{"env", "GOSUMDB"}}
	if err := c.Run(ctx); err != nil {
		return Toolchain{}, err
	}
	modules, err := download(ctx, temp, temp, checked(sumDB.String()), t.module())
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "SECURITY ERROR"):
		return Toolchain{}, fmt.Errorf("%w\nThe server gives another Go %s than everybody else has. "+
			"Name another one in GOPROXY, and type\n\tgo clean -modcache", err, t.Version)
	case os.Getenv(EnvUnchecked) != "1":
		err = fmt.Errorf("checking Go %s against the checksum database: %w\nIts checksum is locked only if the database agrees", t.Version, err)
		return Toolchain{}, advice.With(err, "Let GOPROXY name a server that passes on the database "+
			"(as most do, below /sumdb/), or name a mirror of it in GOSUMDB=\"sum.golang.org https://…\". "+
			"To lock what the server sends without a check, type\n\t%s=1 %s pin", EnvUnchecked, advice.Berth)
	default:
		if modules, err = download(ctx, temp, temp, unchecked, t.module()); err != nil {
			return Toolchain{}, err
		}
		report.Printf("UNCHECKED: the checksum of Go %s is what GOPROXY says, since %s=1 and the checksum database didn't confirm it. "+
			"Compare it with what another network gives before you share the lock", t.Version, EnvUnchecked)
	}
	t.Sum = modules[0].Sum
	return t, nil
}

// EnvUnchecked names the variable that, if it is 1, lets a toolchain be locked though
// the checksum database can't be asked about it.
const EnvUnchecked = "BERTH_TOOLCHAIN_UNCHECKED"

// checked is the environment in which go holds a toolchain against the checksum
// database. People who keep private modules out of the database, or can't reach it,
// set GOSUMDB=off and the like for all modules; GOPROXY=file:// alone is enough that
// go then believes the server. sumDB is the caller's GOSUMDB: it stays where it only
// says by which way to reach Go's own database.
func checked(sumDB string) []string {
	sumDB = strings.TrimSpace(sumDB)
	words := strings.Fields(sumDB)
	if len(words) == 0 || words[0] != "sum.golang.org" && words[0] != "sum.golang.google.cn" {
		sumDB = "sum.golang.org"
	}
	// A comma is a list of no patterns. An empty value would give way to one set by go env -w.
	return []string{"GOSUMDB=" + sumDB, "GONOSUMDB=,", "GIT_HTTP_USER_AGENT="}
}

// unchecked is the environment in which go takes a toolchain as the server sends it.
// The user agent is how the public proxy itself, for which there isn't a checksum
// database yet, tells it to (useSumDB in cmd/go/internal/modfetch/sumdb.go); there is no other way.
var unchecked = []string{"GOSUMDB=off", "GIT_HTTP_USER_AGENT=proxy.golang.org"}

// newest returns the last of the releases of a version, or "". It leaves out
// betas and release candidates.
func newest(releases []string, version string) (best string) {
	for _, r := range releases {
		v := "v" + r
		if semver.IsValid(v) && semver.MajorMinor(v) == semver.MajorMinor("v"+version) && (best == "" || semver.Compare(v, "v"+best) > 0) {
			best = r
		}
	}
	return best
}

// write writes the archive: the toolchain without what only its own tests and
// developers need, the modules, and the folder for temporary files that every
// program expects.
func write(ctx context.Context, w io.Writer, toolchain string, modules []module) error {
	t := &writer{tar: tar.NewWriter(w), dirs: map[string]bool{}}
	if err := t.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777, ModTime: time.Unix(0, 0),
		Format: tar.FormatPAX}); err != nil {
		return err
	}
	z, err := zip.OpenReader(toolchain)
	if err != nil {
		return err
	}
	defer z.Close()
	slices.SortFunc(z.File, func(a, b *zip.File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		// Names start with the module and its version.
		_, rest, _ := strings.Cut(f.Name, "@")
		_, rest, _ = strings.Cut(rest, "/")
		if !fs.ValidPath(rest) || strings.HasSuffix(f.Name, "/") || !needed(rest) {
			continue
		}
		mode := int64(0o644)
		if strings.HasPrefix(rest, "bin/") || strings.HasPrefix(rest, "pkg/tool/") {
			mode = 0o755 // a zip of a module has no modes
		}
		content, err := f.Open()
		if err != nil {
			return err
		}
		err = t.file(goroot+rest, mode, int64(f.UncompressedSize64), content)
		content.Close()
		if err != nil {
			return err
		}
	}
	for _, m := range modules {
		for _, name := range []string{m.Info, m.GoMod, m.Zip} {
			if err := t.module(name); err != nil {
				return err
			}
		}
	}
	return t.tar.Close()
}

// needed reports whether a file of a toolchain is needed to compile programs.
func needed(name string) bool {
	for _, dir := range []string{"src/cmd/", "test/", "doc/", "api/", "misc/"} {
		if strings.HasPrefix(name, dir) {
			return false
		}
	}
	return !strings.HasSuffix(name, "_test.go") && !strings.Contains(name, "/testdata/")
}

// A writer writes a tar in which nothing depends on when and where.
type writer struct {
	tar  *tar.Writer
	dirs map[string]bool // written already
}

// module adds a file of Go's module cache, which has the layout of a GOPROXY.
func (w *writer) module(name string) error {
	_, rel, found := strings.Cut(filepath.ToSlash(name), "/cache/download/")
	if !found {
		return fmt.Errorf("%s isn't in a module cache", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return w.file(proxy+rel, 0o644, info.Size(), f)
}

func (w *writer) file(name string, mode, size int64, content io.Reader) error {
	if err := w.dir(path.Dir(name)); err != nil {
		return err
	}
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: size, ModTime: time.Unix(0, 0),
		Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := io.Copy(w.tar, content)
	return err
}

func (w *writer) dir(name string) error {
	if name == "." || w.dirs[name] {
		return nil
	}
	if err := w.dir(path.Dir(name)); err != nil {
		return err
	}
	w.dirs[name] = true
	return w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0),
		Format: tar.FormatPAX})
}
