// Package wheeltest makes Python wheels, and serves them as an index does, for tests.
package wheeltest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// A Wheel is the file of a wheel.
type Wheel struct {
	Name, Version string
	File          string
	Data          []byte
}

// SHA256 is that of the wheel, in hex.
func (w Wheel) SHA256() string {
	sum := sha256.Sum256(w.Data)
	return hex.EncodeToString(sum[:])
}

// New makes a wheel with files. Those without a folder of its own for them (.data,
// .dist-info) lie among its modules. It gets the metadata that each wheel must have.
func New(t testing.TB, name, version, tag string, files map[string]string) Wheel {
	t.Helper()
	stem := strings.ReplaceAll(name, "-", "_") + "-" + version
	info := stem + ".dist-info/"
	all := map[string]string{}
	maps.Copy(all, files)
	all[info+"METADATA"] = fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)
	all[info+"WHEEL"] = fmt.Sprintf("Wheel-Version: 1.0\nGenerator: berth\nRoot-Is-Purelib: %t\nTag: %s\n", strings.HasSuffix(tag,
		"-any"), tag)
	record := ""
	for _, file := range slices.Sorted(maps.Keys(all)) {
		sum := sha256.Sum256([]byte(all[file]))
		record += fmt.Sprintf("%s,sha256=%s,%d\n", file, base64.RawURLEncoding.EncodeToString(sum[:]), len(all[file]))
	}
	all[info+"RECORD"] = record + info + "RECORD,,\n"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, file := range slices.Sorted(maps.Keys(all)) {
		h := &zip.FileHeader{Name: file, Method: zip.Deflate, Modified: time.Date(2024, 5, 6, 7, 8, 10, 0, time.UTC)}
		h.SetMode(0o644)
		if strings.Contains(file, ".data/scripts/") {
			h.SetMode(0o755)
		}
		w, err := z.CreateHeader(h)
		require.NoError(t, err)
		_, err = w.Write([]byte(all[file]))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return Wheel{Name: name, Version: version, File: stem + "-" + tag + ".whl", Data: b.Bytes()}
}

// module is the source of an extension module with a function answer. It declares what
// it needs of Python's stable ABI (PEP 384), so that no headers are needed.
const module = `
typedef struct object object;
typedef object *(*function)(object *, object *);
struct method { const char *name; function call; int flags; const char *doc; };
static struct {
	struct { long count; void *type; void *init; long index; void *copy; } base;
	const char *name, *doc; long size; struct method *methods; void *slots, *traverse, *clear, *free;
} definition;
extern object *PyModule_Create2(void *, int), *PyLong_FromLong(long);
static object *answer(object *self, object *none) { return PyLong_FromLong(%d); }
static struct method methods[] = {{"answer", answer, 4, 0}, {0, 0, 0, 0}};
object *PyInit_%s(void) {
	definition.base.count = 1; definition.name = "%s"; definition.size = -1; definition.methods = methods;
	return PyModule_Create2(&definition, 1013);
}
`

// Extension compiles an extension module, whose function answer returns a number, or
// skips the test where there is no C compiler.
func Extension(t testing.TB, name string, answer int) string {
	t.Helper()
	compiler := testenv.NeedsCommand(t, testenv.Cgo, "cc")
	dir := t.TempDir()
	source, library := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".so")
	require.NoError(t, os.WriteFile(source, fmt.Appendf(nil, module, answer, name, name), 0o600))
	out, err := exec.Command(compiler, "-shared", "-fPIC", "-s", "-o", library, source).CombinedOutput()
	require.NoError(t, err, string(out))
	data, err := os.ReadFile(library)
	require.NoError(t, err)
	return string(data)
}

// An Index serves wheels on loopback, below /team/: as HTML below html/ (PEP 503), as JSON
// below json/ (PEP 691), and the files themselves below files/.
type Index struct {
	*httptest.Server
	mu     sync.Mutex
	wheels []Wheel
	asked  []string
}

// Serve starts an index, which ends with the test.
func Serve(t testing.TB, wheels ...Wheel) *Index {
	t.Helper()
	i := &Index{wheels: wheels}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

// Asked returns the paths that were asked for since the last call, in order.
func (i *Index) Asked() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := i.asked
	i.asked = nil
	return asked
}

const prefix = "/team/"

// HTML and JSON are the addresses of the index in either form.
func (i *Index) HTML() string { return i.URL + prefix + "html" }
func (i *Index) JSON() string { return i.URL + prefix + "json" }

// FileURL is the address of a wheel, with its plus signs encoded.
func (i *Index) FileURL(w Wheel) string {
	return i.URL + prefix + "files/" + strings.ReplaceAll(url.PathEscape(w.File), "+", "%2B")
}

func (i *Index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.asked = append(i.asked, r.URL.Path)
	i.mu.Unlock()
	kind, name, _ := strings.Cut(strings.Trim(strings.TrimPrefix(r.URL.Path, prefix), "/"), "/")
	var found []Wheel
	for _, one := range i.wheels {
		if one.File == name && kind == "files" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(one.Data))
			return
		}
		if strings.ReplaceAll(strings.ToLower(one.Name), "_", "-") == name {
			found = append(found, one)
		}
	}
	if len(found) == 0 || kind != "html" && kind != "json" {
		http.NotFound(w, r)
		return
	}
	address := func(one Wheel) string {
		return "../../files/" + strings.TrimPrefix(i.FileURL(one), i.URL+prefix+"files/")
	}
	if kind == "html" {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<!DOCTYPE html><html><body>\n")
		for _, one := range found {
			fmt.Fprintf(w, "<a href=\"%s#sha256=%s\" data-requires-python=\"&gt;=3.8\">%s</a><br>\n", address(one), one.SHA256(), one.File)
		}
		return
	}
	if !strings.Contains(r.Header.Get("Accept"), "application/vnd.pypi.simple.v1+json") {
		http.Error(w, "JSON only", http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	page := map[string]any{"meta": map[string]string{"api-version": "1.0"}, "name": name}
	var files []map[string]any
	for _, one := range found {
		files = append(files, map[string]any{
			"filename": one.File, "url": address(one), "hashes": map[string]string{"sha256": one.SHA256()},
		})
	}
	page["files"] = files
	json.NewEncoder(w).Encode(page)
}
