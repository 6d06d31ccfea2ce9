package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// getentSays puts a getent alone on the PATH.
func getentSays(t *testing.T, script string) {
	bin := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(bin, "getent"), []byte("#!/bin/sh\n"+script), 0o755))
	t.Setenv("PATH", bin)
}

func TestLookup(t *testing.T) {
	getentSays(t, `case "$*" in
"passwd 712400005") printf '%s\n' 'alice@EXAMPLE.ORG:*:712400005:712400005:Alice Example,,,:/home/alice:/bin/zsh' ;;
"group 712400005 4 712400100") printf '%s\n' 'gpu people:*:712400100:alice@EXAMPLE.ORG,bob' 'adm:x:4:' ; exit 2 ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac`)
	u, err := Lookup(t.Context(), 712400005, 712400005, []int{712400100, 4, 712400005, 4})
	require.NoError(t, err)
	assert.Equal(t, User{
		Name: "alice@EXAMPLE.ORG", UID: 712400005, Gecos: "Alice Example,,,", Home: "/home/alice",
		Groups: []Group{{"group712400005", 712400005}, {"adm", 4}, {"gpu people", 712400100}},
	}, u)
}

func TestLookupOfNobody(t *testing.T) {
	getentSays(t, "exit 2")
	u, err := Lookup(t.Context(), 54321, 54322, nil)
	require.NoError(t, err)
	assert.Equal(t, User{Name: "user", UID: 54321, Home: "/home/user", Groups: []Group{{"group54322", 54322}}}, u)
}

func TestName(t *testing.T) {
	getentSays(t, `[ "$*" = "passwd 1000" ] && echo alice:x:1000:1000::/home/alice:/bin/sh || exit 2`)
	assert.Equal(t, "alice", Name(t.Context(), 1000))
	assert.Equal(t, "user 54321", Name(t.Context(), 54321))
}

func TestLookupFails(t *testing.T) {
	getentSays(t, "echo 'Unknown database' >&2; exit 1")
	_, err := Lookup(t.Context(), 1, 1, nil)
	assert.EqualError(t, err, "looking up group 1: exit status 1: Unknown database")
}

func TestLookupWithoutGetent(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	u, err := Lookup(t.Context(), 0, 0, nil)
	require.NoError(t, err)
	assert.Equal(t, "root", u.Name)
}

func TestHomeDir(t *testing.T) {
	for home, want := range map[string]string{
		"/home/alice": "/home/alice", "/home/lab/alice/": "/home/lab/alice", "/root": "/root",
		"/": "/home/al", "": "/home/al", "/nonexistent": "/home/al", "/var/lib/x": "/home/al", "/home": "/home/al", "/home/../etc": "/home/al",
		"relative": "/home/al",
	} {
		assert.Equal(t, want, User{Name: "al", Home: home}.HomeDir(), home)
	}
	assert.Equal(t, "/home/b", User{Name: "../a/b", Home: "/"}.HomeDir())
}

const image = `root:x:0:0:root:/root:/bin/bash
# a comment
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
ubuntu:x:1000:1000:Ubuntu:/home/ubuntu:/bin/bash
alice:x:999:999::/var/alice:/bin/false
+::::::
no newline:x:5:5::/:/bin/sh`

func TestPasswd(t *testing.T) {
	u := User{Name: "alice", UID: 1000, Gecos: "Alice", Groups: []Group{{"alice", 1000}}}
	assert.Equal(t, `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
no newline:x:5:5::/:/bin/sh
alice:x:1000:1000:Alice:/home/alice:/bin/bash
`, string(u.Passwd([]byte(image), "/home/alice", "/bin/bash")))
	assert.Equal(t, "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/bash\n",
		string(u.Passwd(nil, "/home/alice", "/bin/bash")), "an image without users")
	root := User{Name: "root", Groups: []Group{{"root", 0}}}
	assert.Equal(t, "root:x:0:0::/root:/bin/bash\n", string(root.Passwd(nil, "/root", "/bin/bash")))
}

func TestGroup(t *testing.T) {
	u := User{Name: "alice", UID: 1000, Groups: []Group{{"alice", 1000}, {"docker", 998}, {"video", 44}}}
	assert.Equal(t, `root:x:0:
users:x:100:
alice:x:1000:
docker:x:998:alice
video:x:44:alice
`, string(u.Group([]byte("root:x:0:\nvideo:x:44:bob\nsystemd-network:x:998:\nusers:x:100:\nubuntu:x:1000:\n"))))
}

// Whatever an image has in its files, every line of the result is an entry, the
// caller is in it once, and root is there.
func FuzzPasswd(f *testing.F) {
	f.Add([]byte(image))
	f.Add([]byte("\n\n::::\nalice\nx:y:1000\r\n"))
	f.Add([]byte("x:x:00001000:"))
	f.Add([]byte("EN\x00D\nEND\ntouch /tmp/x\nx:x:1:\x1b]0;\a\r:\r"))
	f.Fuzz(func(t *testing.T, file []byte) {
		u := User{Name: "alice", UID: 1000, Groups: []Group{{"alice", 1000}}}
		got := u.Passwd(file, "/home/alice", "/bin/sh")
		seen, root := 0, false
		for line := range strings.Lines(string(got)) {
			e, ok := parse(line)
			if !ok {
				t.Fatalf("%q is no entry", line)
			}
			root = root || e.id == 0
			if e.id == 1000 || e.name == "alice" {
				seen++
			}
		}
		if seen != 1 || !root {
			t.Fatalf("alice is there %d times, root: %v in %q", seen, root, got)
		}
		if again := u.Passwd(got, "/home/alice", "/bin/sh"); string(again) != string(got) {
			t.Fatalf("%q, then %q", got, again)
		}
	})
}
