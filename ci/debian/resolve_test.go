package debian

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/advice"
)

// offer is a package in an index.
func offer(t testing.TB, name, version, fields string) candidate {
	t.Helper()
	c, err := newCandidate(parse(t, fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nFilename: pool/x\nSize: 1\nSHA256: %064d\n%s",
		name, version, 0, fields)), "debian")
	require.NoError(t, err)
	return c
}

func TestVersionOperators(t *testing.T) {
	for wants, good := range map[string]bool{
		"(= 1:2.0-3)": true, "(= 2.0-3)": false, "(= 1:2.0-3~)": false,
		"(>= 1:2.0-3)": true, "(>= 1:2.0-3~rc)": true, "(>= 1:2.0-3.1)": false,
		"(<= 1:2.0-3)": true, "(<= 1:2.0-3~rc)": false, "(<= 9)": false,
		"(>> 1:2.0-3)": false, "(>> 1:2.0-3~rc)": true, "(>> 9)": true,
		"(<< 1:2.0-3)": false, "(<< 1:2.0-4)": true, "(<< 2:0)": true,
	} {
		for _, depends := range []string{"x", "v"} { // real and virtual
			_, err := resolve([]candidate{
				offer(t, "a", "1", "Depends: "+depends+" "+wants),
				offer(t, "x", "1:2.0-3", "Provides: v (= 1:2.0-3)"),
			}, []string{"a"})
			if good {
				assert.NoError(t, err, "%s %s", depends, wants)
			} else {
				assert.ErrorContains(t, err, "nothing meets the dependency on "+depends, "%s %s", depends, wants)
				assert.ErrorContains(t, err, "packages.toml", "what to do is missing")
			}
		}
	}
}

// The order in which an index has its packages must not matter.
func TestResolveIsDeterministic(t *testing.T) {
	var all []candidate
	for i := range 40 {
		fields := fmt.Sprintf("Provides: v%d (= %d)\nDepends: p%d | v%d, v%d", i%5, i, (i*7+1)%40, (i+1)%5, (i+2)%5)
		all = append(all, offer(t, fmt.Sprintf("p%d", i), "1", fields), offer(t, fmt.Sprintf("p%d", i), "2", fields))
	}
	all = append(all, offer(t, "core", "1", "Essential: yes\nDepends: v3"))
	want, err := resolve(all, []string{"p0", "p9"})
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		got, err := resolve(all, []string{"p9", "p0"})
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestNearest(t *testing.T) {
	for name, c := range map[string]struct{ have, got string }{
		"the lowest above":      {"1 5 4 3", "3"},
		"the same":              {"1 2 3", "2"},
		"the highest below":     {"1 1.5 1.2", "1.5"},
		"tilde is below":        {"2~rc1 9", "9"},
		"of another name, none": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			offers := []candidate{offer(t, "b", "2", "")}
			for _, version := range strings.Fields(c.have) {
				offers = append(offers, offer(t, "a", version, ""))
			}
			got, err := nearest(offers, Package{Name: "a", Version: "2"})
			if c.got == "" {
				require.ErrorIs(t, err, errGone)
				assert.Contains(t, advice.Text(err, "go tool mage"), "go tool mage pin")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.got, got.Version)
		})
	}
}

// Whatever parses can be asked about without a panic.
func FuzzPossibilities(f *testing.F) {
	f.Add("libc6 (>= 2.36), a:any | b [amd64 !i386] <!nocheck>, ${x}")
	f.Add("a (= 1:2.0-3~x+y), b (<< 2) | c (>> 1)")
	f.Add(",|(")
	all := []candidate{offer(f, "a", "1", "Provides: b, c (= 2)"), offer(f, "b", "1:0", "")}
	f.Fuzz(func(t *testing.T, field string) {
		groups, err := possibilities(field)
		if err != nil {
			return
		}
		for _, group := range groups {
			require.NotEmpty(t, group)
			for _, p := range group {
				for i := range all {
					satisfies(&all[i], p)
					provides(&all[i], p)
				}
			}
		}
		one := candidate{Package: Package{Name: "c", Version: "1"}, depends: field, provides: field, conflicts: field}
		resolve(append([]candidate{one}, all...), []string{"c"})
	})
}
