package debian

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/berthdev/berth/internal/advice"
)

// A question is what apt is asked. Its methods say it in apt's own words; asking is
// somebody else's part.
type question struct {
	Manifest
	sources   []source
	essential []string
	recommend map[string]string // Recommends fields of packages that are wanted with what they recommend
	trace     bool              // have apt say why it takes each package
}

// Everything that apt reads lies in or is mounted to these places of its container.
const (
	aptConf    = "/berth/apt.conf"
	aptSources = "/berth/sources.list"
	aptStatus  = "/berth/status"
	aptLists   = "/var/lib/apt/lists/"
)

// aptHost stands for all archives: nobody has this name, and nobody is asked.
const aptHost = "http://berth"

// extra is a package that exists for apt alone. It recommends what single packages
// recommend, from a section whose recommendations apt heeds, so that apt chooses among
// alternatives itself and leaves out what can't be had.
const (
	extra      = "berth-recommends"
	extraIndex = "Package: " + extra + "\nVersion: 1\nArchitecture: all\nMaintainer: none\nSection: " + extra + "\nRecommends: %s\n" +
		"Filename: none\nSize: 1\nSHA256: 0000000000000000000000000000000000000000000000000000000000000000\nDescription: none\n"
)

// conf is apt's configuration. Recommended and suggested packages stay out unless they are
// asked for; nothing is installed yet.
func (q question) conf() string {
	return fmt.Sprintf(`APT::Architecture "%s";
APT::Architectures { "%[1]s"; };
APT::Install-Recommends "%t";
APT::Install-Recommends-Sections { "%s"; };
APT::Install-Suggests "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Debug::NoLocking "true";
Debug::pkgDepCache::AutoInstall "%t";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Etc::SourceList "%s";
Dir::Etc::SourceParts "/dev/null";
Dir::State::status "%s";
`, q.Architecture, q.Recommends, extra, q.trace, aptSources, aptStatus)
}

// sourcesList names the suites. They are trusted: their signatures were checked before.
func (q question) sourcesList() string {
	var b strings.Builder
	for i, s := range q.sources {
		fmt.Fprintln(&b, "deb [trusted=yes]", aptBase(i), strings.Join(append([]string{s.Name}, s.Components...), " "))
	}
	if len(q.recommend) > 0 {
		fmt.Fprintln(&b, "deb [trusted=yes]", aptBase(len(q.sources)), "./")
	}
	return b.String()
}

// aptBase is the URL that stands for a source.
func aptBase(source int) string { return aptHost + "/" + strconv.Itoa(source) }

// listName is the name that apt gives to a file of a source.
func listName(source int, folder, file string) string {
	uri := strings.TrimPrefix(aptBase(source), "http://") + "/" + folder + "/" + file
	return strings.NewReplacer("_", "%5f", "~", "%7e", "/", "_").Replace(uri)
}

// aptFolder is the suite's folder as apt spells it.
func (s Suite) aptFolder() string {
	if s.flat() {
		return strings.TrimSuffix(s.Name, "/")
	}
	return s.folder()
}

// lists are the paths of indices, by the name that apt has for each.
func (q question) lists() map[string]string {
	all := map[string]string{}
	for n, s := range q.sources {
		for _, i := range s.indices {
			folder := s.aptFolder()
			if i.component != "" {
				folder += "/" + i.component + "/" + i.folder
			}
			all[listName(n, folder, "Packages")] = i.path
		}
	}
	return all
}

// texts are the files that apt reads in addition to the indices, by their paths.
func (q question) texts() map[string]string {
	all := map[string]string{aptConf: q.conf(), aptSources: q.sourcesList(), aptStatus: ""}
	for n, s := range q.sources {
		all[aptLists+listName(n, s.aptFolder(), s.release.name)] = string(s.release.text)
	}
	if len(q.recommend) > 0 {
		fields := strings.Join(slices.Sorted(maps.Values(q.recommend)), ", ")
		all[aptLists+listName(len(q.sources), ".", "Packages")] = fmt.Sprintf(extraIndex, fields)
	}
	return all
}

// command has apt print what it would fetch. Essential packages must be named: to apt
// they are there already.
func (q question) command() []string {
	args := []string{"apt-get", "-q", "-y", "--print-uris", "install"}
	wished := map[string]bool{}
	for _, w := range q.Packages {
		wished[w.Name] = true
	}
	for _, name := range q.essential {
		if !wished[name] {
			args = append(args, name)
		}
	}
	for _, w := range q.Packages {
		switch {
		case w.Version != "":
			args = append(args, w.Name+"="+w.Version)
		case w.From != "":
			args = append(args, w.Name+"/"+w.From)
		default:
			args = append(args, w.Name)
		}
	}
	if len(q.recommend) > 0 {
		args = append(args, extra)
	}
	return args
}

// An origin is where apt would fetch a package from.
type origin struct {
	source int
	file   string // path below the archive's base
}

var printedURI = regexp.MustCompile(`^'` + aptHost + `/(\d+)/([^']+)' `)

// parseURIs returns where apt would fetch the packages of its answer from.
func parseURIs(output string) (all []origin, err error) {
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "'") {
			continue
		}
		found := printedURI.FindStringSubmatch(line)
		if found == nil {
			return nil, fmt.Errorf("apt would fetch %q, from none of the suites", strings.TrimSpace(line))
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			return nil, err
		}
		file, err := url.PathUnescape(found[2])
		if err != nil {
			return nil, fmt.Errorf("reading apt's answer %q: %w", strings.TrimSpace(line), err)
		}
		all = append(all, origin{n, path.Clean(file)})
	}
	return all, nil
}

// A cause is why apt takes a package.
type cause struct {
	by   string // the package that wants it
	kind string // Depends, PreDepends, Recommends
}

var traced = regexp.MustCompile(`^\s*Installing ([^\s:]+)\S* as (\S+) of ([^\s:]+)`)

// parseTrace returns why apt takes each package: the first reason that it had.
func parseTrace(output string) map[string]cause {
	all := map[string]cause{}
	for line := range strings.Lines(output) {
		if found := traced.FindStringSubmatch(line); found != nil {
			if _, known := all[found[1]]; !known {
				all[found[1]] = cause{found[3], found[2]}
			}
		}
	}
	return all
}

// progressOfApt begins the lines in which apt says what it is about to do.
var progressOfApt = regexp.MustCompile(`^(Reading package lists|Building dependency tree|Reading state information)\.\.\.`)

// unsatisfiable is the error about wishes that apt can't fulfil: its own explanation,
// and the places of the wishes that this names.
func (m Manifest) unsatisfiable(explanation string) error {
	var said strings.Builder
	for line := range strings.Lines(explanation) {
		if line = strings.TrimRight(line, " \n"); line != "" && line[0] != '\'' && !progressOfApt.MatchString(line) {
			said.WriteString("\n\t" + line)
		}
	}
	words := map[string]bool{}
	for _, word := range strings.FieldsFunc(explanation, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' || r == '-' || r == '.')
	}) {
		words[word], words[strings.TrimRight(word, ".")] = true, true
	}
	var places []string
	for _, w := range m.Packages {
		if words[w.Name] {
			places = append(places, m.where(w)+" wants "+w.Name)
		}
	}
	if len(places) == 0 {
		places = []string{"for what " + m.name() + " wants"}
	}
	return advice.With(fmt.Errorf("apt can't choose packages: %s. It says:%s", strings.Join(places, ", "), said.String()),
		"Change these wishes, or add the suite that has what is missing.")
}

// checkTaken returns an error unless apt took each wish for the name of a package: it
// also reads names as patterns, and takes the one provider of a virtual package.
func (m Manifest) checkTaken(packages []Package) error {
	var errs []error
	for _, w := range m.Packages {
		if !slices.ContainsFunc(packages, func(p Package) bool { return p.Name == w.Name }) {
			errs = append(errs, fmt.Errorf("%s wants %s, but no package has that name. "+
				"If others provide it, name one of them: apt-cache showpkg %s lists them", m.where(w), w.Name, w.Name))
		}
	}
	return errors.Join(errs...)
}

// essential lists the names of the packages that are Essential.
func essential(sources []source, architecture string) ([]string, error) {
	names := map[string]bool{}
	for _, s := range sources {
		for _, i := range s.indices {
			marked := func(text []byte) bool { return bytes.Contains(text, []byte("\nEssential: yes")) }
			err := i.eachPackage(marked, func(p paragraph) error {
				if p["Architecture"] == architecture || p["Architecture"] == "all" {
					names[p["Package"]] = true
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}
