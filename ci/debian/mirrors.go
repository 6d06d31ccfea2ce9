package debian

import (
	"bufio"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// EnvMirror names the variable with the base URL of a mirror, below which debian/ and
// debian-security/ lie, each with its dists/ and pool/, and perhaps other archives, each
// under its name in packages.toml.
const EnvMirror = "BERTH_DEBIAN_MIRROR"

// Snapshots keeps every file that was ever in the archive.
const Snapshots = "https://snapshot.debian.org/archive"

// Mirrors are the base URLs of each archive, the first to ask first. Those of "" have
// other archives than Debian's below them, by name.
type Mirrors map[string][]string

// HostMirrors returns the mirror that BERTH_DEBIAN_MIRROR names or, without it,
// those of the machine's apt configuration; none where it has no apt.
// snapshot.debian.org comes last, always, without being listed.
func HostMirrors() Mirrors {
	if base := os.Getenv(EnvMirror); base != "" {
		base = strings.TrimRight(base, "/")
		return Mirrors{"debian": {base + "/debian"}, "debian-security": {base + "/debian-security"}, "": {base}}
	}
	m := Mirrors{}
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*")
	for _, name := range append([]string{"/etc/apt/sources.list"}, files...) {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // not there, or not for us: other mirrors remain
		}
		switch filepath.Ext(name) {
		case ".list":
			m.add(parseSourcesList(string(text)))
		case ".sources":
			m.add(parseSources(string(text)))
		}
	}
	return m
}

// ofDebian tells an entry for Debian's own archives from those of others whose addresses end
// in the same name: Docker's have no component main, GitLab's name a key of their own. signedBy
// is "" if the entry names no keys, and may be their fingerprints.
func ofDebian(components []string, signedBy string) bool {
	return slices.Contains(components, "main") && (!strings.Contains(signedBy, "/") || strings.Contains(signedBy, "/debian-archive-"))
}

// add sorts URLs under the archives whose names they end in.
func (m Mirrors) add(urls []string) {
	for _, u := range urls {
		u = strings.TrimRight(u, "/")
		archive := path.Base(u)
		if parsed, err := url.Parse(u); err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" {
			continue
		}
		if (archive == "debian" || archive == "debian-security") && !slices.Contains(m[archive], u) {
			m[archive] = append(m[archive], u)
		}
	}
}

// parseSourcesList returns the URLs of Debian's archives in apt's one-line format
// (sources.list(5)).
func parseSourcesList(text string) (urls []string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.SplitN(line, "#", 2)[0])
		if len(words) == 0 || words[0] != "deb" {
			continue
		}
		words = words[1:]
		signedBy := ""
		if len(words) > 0 && strings.HasPrefix(words[0], "[") { // options, up to "]"
			end := slices.IndexFunc(words, func(w string) bool { return strings.HasSuffix(w, "]") })
			_, signedBy, _ = strings.Cut(strings.Join(words[:end+1], " "), "signed-by=")
			signedBy, _, _ = strings.Cut(signedBy, " ")
			words = words[end+1:]
		}
		if len(words) > 2 && ofDebian(words[2:], signedBy) { // after the suite
			urls = append(urls, words[0])
		}
	}
	return urls
}

// parseSources returns the URLs of Debian's archives in apt's deb822 format (sources.list(5)).
func parseSources(text string) (urls []string) {
	eachParagraph(bufio.NewReader(strings.NewReader(text)), func(p paragraph) error {
		if !strings.EqualFold(p["Enabled"], "no") && slices.Contains(strings.Fields(p["Types"]), "deb") &&
			ofDebian(strings.Fields(p["Components"]), p["Signed-By"]) {
			urls = append(urls, strings.Fields(p["URIs"])...)
		}
		return nil
	})
	return urls
}

// bases returns the URLs below which an archive's files may be found: mirrors, then the
// snapshots of these times. An archive with a URL of its own has no snapshots.
func (a archiveReader) bases(archive, url string, snapshots ...time.Time) (all []string) {
	if url == "" {
		all = slices.Clone(a.mirrors[archive])
		for _, at := range snapshots {
			all = append(all, snapshotBase(a.snapshots, archive, at))
		}
		return all
	}
	for _, base := range a.mirrors[""] {
		all = append(all, base+"/"+archive)
	}
	return append(all, url)
}

// snapshotBase is the URL below which a snapshot service has an archive as it was.
func snapshotBase(service, archive string, at time.Time) string {
	return service + "/" + archive + "/" + at.UTC().Format(snapshotLayout)
}
