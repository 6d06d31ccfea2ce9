package launch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// directory is a getent as a machine has it whose users are in a directory
// server: they are in no file.
const directory = `#!/bin/sh
case "$1 $2" in
"passwd 712400005") printf '%s\n' 'ALLIANCE\alice:*:712400005:712400005:Alice Example,,,:/export/home/alice:/bin/zsh' ;;
"group 712400005") printf '%s\n' 'ALLIANCE\domain users:*:712400005:' 'gpu-people:*:712400100:bob,carol' ; exit 2 ;;
*) exit 2 ;;
esac
`

func TestPeople(t *testing.T) {
	const script = `id -u; id -g; id -G; id -un; echo "$USER $HOME"; echo x > ~/mine; echo y > theirs; getent passwd 0 33 | cut -d: -f1,3; (echo >> /etc/passwd) 2>&1 | grep -o 'Read-only file system\|Permission denied'; true`
	tests := []struct {
		name     string
		uid, gid int
		groups   []int
		getent   string
		want     func(groups string) string
	}{
		{"nobody knows", 54321, 54322, nil, "", func(groups string) string {
			return "54321\n54322\n" + groups + "\nuser\nuser /home/user\nroot:0\nwww-data:33\n"
		}},
		{"in three groups", 23456, 23457, []int{44, 23458, 100}, "", func(groups string) string {
			return "23456\n23457\n" + groups + "\nuser\nuser /home/user\nroot:0\nwww-data:33\n"
		}},
		{"in a directory server", 712400005, 712400005, []int{712400100}, directory, func(groups string) string {
			return "712400005\n712400005\n" + groups + "\nALLIANCE\\alice\nALLIANCE\\alice /home/ALLIANCE\\alice\nroot:0\nwww-data:33\n"
		}},
		{"whose uid the image gave to another", 33, 33, nil,
			"#!/bin/sh\n[ $1 = passwd ] && echo web:x:33:33::/home/web:/bin/sh || echo www:x:33:\n", func(groups string) string {
				return "33\n33\n" + groups + "\nweb\nweb /home/web\nroot:0\nweb:33\n"
			}},
		{"root", 0, 0, nil, "", func(groups string) string { return "0\n0\n" + groups + "\nroot\nroot /root\nroot:0\nwww-data:33\n" }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPerson(t)
			p.become(test.uid, test.gid, test.groups...)
			if test.getent != "" {
				bin := t.TempDir()
				require.NoError(t, os.Chmod(filepath.Dir(bin), 0o755))
				require.NoError(t, os.Chmod(bin, 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(bin, "getent"), []byte(test.getent), 0o755))
				p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"))
			}
			r := p.run(script, "")
			require.Equal(t, 0, r.code, r.err)
			head := fmt.Sprint(test.gid)
			for _, g := range sorted(test.gid, p.as.Groups) {
				head += fmt.Sprintf(" %d", g)
			}
			lines := strings.Split(r.out, "\n")
			refusal := lines[len(lines)-2]
			assert.Contains(t, []string{"Read-only file system", "Permission denied"}, refusal)
			assert.Equal(t, test.want(head), strings.Join(lines[:len(lines)-2], "\n")+"\n")

			for _, name := range []string{ours.Home + "/mine", "theirs"} {
				info, err := os.Stat(filepath.Join(p.options.Root, name))
				require.NoError(t, err)
				stat := info.Sys().(*syscall.Stat_t)
				assert.EqualValues(t, test.uid, stat.Uid, name)
				assert.EqualValues(t, test.gid, stat.Gid, name)
			}
		})
	}
}

// sorted returns the groups other than gid, each once, in order.
func sorted(gid int, groups []uint32) (other []int) {
	for _, g := range groups {
		if int(g) != gid && !slices.Contains(other, int(g)) {
			other = append(other, int(g))
		}
	}
	slices.Sort(other)
	return other
}
