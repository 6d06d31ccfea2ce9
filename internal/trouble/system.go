package trouble

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// A System is a distribution.
type System struct {
	Name string   // such as "Debian GNU/Linux 12 (bookworm)"; "" if it doesn't tell
	IDs  []string // its own, then those that it is like, the closest first: "ubuntu", "debian"
}

// Here is the distribution of this machine.
var Here = sync.OnceValue(func() System { return ReadSystem("/") })

// ReadSystem reads the distribution of the machine whose file system is at root from its
// os-release(5). One that has none has no name.
func ReadSystem(root string) System {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		if text, err := os.ReadFile(filepath.Join(root, name)); err == nil {
			return parseSystem(string(text))
		}
	}
	return System{}
}

// likeRHEL are distributions that say they are like Fedora, but whose packages are as
// RHEL's are: Oracle Linux and Amazon Linux.
var likeRHEL = []string{"ol", "amzn"}

// parseSystem reads os-release(5): assignments of a shell, whose values may be quoted.
func parseSystem(text string) System {
	values := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		if unquoted, err := strconv.Unquote(value); err == nil && strings.HasPrefix(value, `"`) {
			value = unquoted
		} else {
			value = strings.Trim(value, `"'`)
		}
		values[name] = value
	}
	s := System{Name: values["PRETTY_NAME"]}
	if s.Name == "" {
		s.Name = values["NAME"]
	}
	s.IDs = strings.Fields(values["ID"] + " " + values["ID_LIKE"])
	if at := slices.Index(s.IDs, "fedora"); at >= 0 && slices.Contains(likeRHEL, s.IDs[0]) && !slices.Contains(s.IDs, "rhel") {
		s.IDs = slices.Insert(s.IDs, at, "rhel")
	}
	return s
}
