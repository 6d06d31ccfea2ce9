// Package identity says who the caller is, and makes the passwd and group files
// that let a container know them by name: a uid that only a directory server
// knows, or none at all, is at home in an image that knows nothing of it. It
// asks the system (getent) and writes nothing.
package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/berthdev/berth/internal/process"
)

// A User is a person, as passwd(5) and group(5) describe them.
type User struct {
	Name   string
	UID    int
	Gecos  string  // full name and the like
	Home   string  // on the host
	Groups []Group // the primary group first
}

// A Group is one that a User belongs to.
type Group struct {
	Name string
	GID  int
}

// lookupTimeout is how long a directory server may take to answer.
const lookupTimeout = 10 * time.Second

// Current returns the user that this process runs as.
func Current(ctx context.Context) (User, error) {
	gids, err := os.Getgroups()
	if err != nil {
		return User{}, fmt.Errorf("asking for this process's groups: %w", err)
	}
	return Lookup(ctx, os.Getuid(), os.Getgid(), gids)
}

// Lookup returns the user with that uid, primary gid and supplementary gids.
// Names come from the system's name service through getent, so that users and
// groups of a directory server (LDAP, FreeIPA, Active Directory) have them too.
// Those that have no entry get a made-up name.
func Lookup(ctx context.Context, uid, gid int, gids []int) (User, error) {
	ids := []int{gid}
	for _, g := range gids {
		if !slices.Contains(ids, g) {
			ids = append(ids, g)
		}
	}
	slices.Sort(ids[1:])
	keys := make([]string, len(ids))
	for i, g := range ids {
		keys[i] = strconv.Itoa(g)
	}
	groups, err := getent(ctx, "group", keys...)
	if err != nil {
		return User{}, err
	}
	users, err := getent(ctx, "passwd", strconv.Itoa(uid))
	if err != nil {
		return User{}, err
	}

	u := User{Name: "user", UID: uid, Home: "/home/user"}
	for line := range strings.Lines(users) {
		if e, ok := parse(line); ok && e.id == uid && len(e.fields) >= 6 {
			u.Name, u.Gecos, u.Home = e.name, e.fields[4], e.fields[5]
			break
		}
	}
	for i, g := range ids {
		u.Groups = append(u.Groups, Group{Name: "group" + keys[i], GID: g})
	}
	for line := range strings.Lines(groups) {
		if e, ok := parse(line); ok {
			if i := slices.Index(ids, e.id); i >= 0 {
				u.Groups[i].Name = e.name
			}
		}
	}
	return u, nil
}

// Name returns the name of a user, "user 54321" for one without an entry or where the
// name service fails.
func Name(ctx context.Context, uid int) string {
	number := strconv.Itoa(uid)
	users, _ := getent(ctx, "passwd", number)
	for line := range strings.Lines(users) {
		if e, ok := parse(line); ok && e.id == uid {
			return e.name
		}
	}
	return "user " + number
}

// getent returns the entries of a name service database that have one of the
// keys. Keys without an entry are left out. Where there is no getent (it comes
// with the C library) the whole of the database's file is returned.
func getent(ctx context.Context, database string, keys ...string) (string, error) {
	out, errs, err := process.Ask(ctx, lookupTimeout, "getent", append([]string{database}, keys...)...)
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		file, err := os.ReadFile("/etc/" + database)
		return string(file), err
	case errors.Is(err, process.ErrLate):
		return "", fmt.Errorf("looking up %s %s: %w. Is the directory server that /etc/nsswitch.conf names reachable? Try: getent %[1]s %[2]s",
			database, strings.Join(keys, " "), err)
	case errors.As(err, &exit) && exit.ExitCode() == 2: // at least one key isn't there
		return string(out), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("looking up %s %s: %w", database, strings.Join(keys, " "), err)
	case err != nil:
		return "", fmt.Errorf("looking up %s %s: %w: %s", database, strings.Join(keys, " "), err, bytes.TrimSpace(errs))
	}
	return string(out), nil
}

// An entry is a line of passwd or group: name:password:id:…
type entry struct {
	name   string
	id     int
	fields []string
}

// parse returns ok false for what is no entry: a comment, an empty line, a
// reference to NIS, or a line that would do something to a terminal.
func parse(line string) (e entry, ok bool) {
	if strings.ContainsFunc(strings.TrimRight(line, "\r\n"), unicode.IsControl) {
		return entry{}, false
	}
	e.fields = strings.Split(strings.TrimRight(line, "\r\n"), ":")
	if len(e.fields) < 3 || e.fields[0] == "" || strings.ContainsAny(e.fields[0][:1], "#+-") {
		return entry{}, false
	}
	id, err := strconv.ParseUint(e.fields[2], 10, 32)
	e.name, e.id = e.fields[0], int(id)
	return e, err == nil
}

// HomeDir is the path at which the user's home should appear in a container:
// where it is on the host if that is in /home or is /root, else in /home, where
// it hides nothing of the image.
func (u User) HomeDir() string {
	if home := path.Clean(u.Home); home == "/root" || strings.HasPrefix(home, "/home/") {
		return home
	}
	return "/home/" + path.Base("/"+u.Name)
}

// Passwd returns an image's passwd file with the user in it. Root and the image's
// system users stay, lines that are no entries are dropped, since nothing vouches
// for what an image has in them; an entry with the user's uid or name is dropped,
// because the caller's identity wins over whatever the image calls uid 1000.
func (u User) Passwd(image []byte, home, shell string) []byte {
	out := without(image, map[int]bool{u.UID: true}, map[string]bool{u.Name: true})
	if u.UID != 0 && !hasID(out, 0) {
		out = append(out, "root:x:0:0:root:/root:/bin/sh\n"...)
	}
	return fmt.Appendf(out, "%s:x:%d:%d:%s:%s:%s\n", u.Name, u.UID, u.Groups[0].GID, u.Gecos, home, shell)
}

// Group returns the entries of an image's group file with the user's groups in
// place of those that have a gid or name in common with them.
func (u User) Group(image []byte) []byte {
	ids, names := map[int]bool{}, map[string]bool{}
	for _, g := range u.Groups {
		ids[g.GID], names[g.Name] = true, true
	}
	out := without(image, ids, names)
	if !ids[0] && !hasID(out, 0) {
		out = append(out, "root:x:0:\n"...)
	}
	for i, g := range u.Groups {
		member := u.Name
		if i == 0 {
			member = "" // passwd says so already
		}
		out = fmt.Appendf(out, "%s:x:%d:%s\n", g.Name, g.GID, member)
	}
	return out
}

// without returns the entries of a passwd or group file, as they are, save those
// with one of the ids or names.
func without(file []byte, ids map[int]bool, names map[string]bool) []byte {
	var out []byte
	for line := range bytes.Lines(file) {
		if e, ok := parse(string(line)); ok && !ids[e.id] && !names[e.name] {
			out = append(out, line...)
		}
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return out
}

func hasID(file []byte, id int) bool {
	for line := range bytes.Lines(file) {
		if e, ok := parse(string(line)); ok && e.id == id {
			return true
		}
	}
	return false
}
