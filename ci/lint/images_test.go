package lint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	sumA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	sumB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	sumC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

const taking = `# syntax=docker/dockerfile:1
ARG BASE=team/base:1@` + sumA + `
ARG NONE
FROM scratch AS rootfs
FROM $BASE AS start
FROM --platform=linux/amd64 \
  team/base:1@` + sumA + ` AS second
COPY --from=start /a /
COPY --from=0 /a /
COPY --from=busybox /bin/sh /bin/
RUN --mount=type=bind,from=team/tools:2@` + sumB + `,target=/t --mount=from=second,target=/s cp /t/a /s/a /
FROM start AS team
FROM team/base AS team/base
FROM ${NONE}
FROM scratch
FROM team/${TARGETARCH}
RUN --mount=from=a:1@` + sumB + `,target=/a \
  # --mount=from=a:1@` + sumB + `
  --mount=from=a:1@` + sumB + `,target=/b --mount=from=a:1@` + sumB + `,target=/c \
  cp /a /b
`

func TestImages(t *testing.T) {
	images := Images([]byte(taking))
	assert.Equal(t, []Image{
		{"FROM", "team/base:1@" + sumA, "$BASE", 5, 5},
		{"FROM", "team/base:1@" + sumA, "team/base:1@" + sumA, 7, 2},
		{"COPY --from", "busybox", "busybox", 10, 12},
		{"RUN --mount=from", "team/tools:2@" + sumB, "team/tools:2@" + sumB, 11, 27},
		{"FROM", "team/base", "team/base", 13, 5},
		{"FROM", "", "${NONE}", 14, 5},
		{"FROM", "", "team/${TARGETARCH}", 16, 5},
		{"RUN --mount=from", "a:1@" + sumB, "a:1@" + sumB, 17, 17},
		{"RUN --mount=from", "a:1@" + sumB, "a:1@" + sumB, 19, 15},
		{"RUN --mount=from", "a:1@" + sumB, "a:1@" + sumB, 19, len("  --mount=from=a:1@,target=/b --mount=from=") + len(sumA)},
	}, images)
	assert.True(t, images[0].Pinned())
	assert.False(t, images[2].Pinned())
	assert.False(t, images[5].Pinned())
	assert.Empty(t, Images([]byte("FRM x")))

	replaced, err := ReplaceImages([]byte(taking), images, func(Image) string { return "X" })
	require.NoError(t, err)
	want := strings.NewReplacer("FROM $BASE", "FROM X", "  team/base:1@"+sumA, "  X", "--from=busybox", "--from=X", "from=team/tools:2@"+sumB, "from=X",
		"FROM team/base AS", "FROM X AS", "FROM ${NONE}", "FROM X", "FROM team/${TARGETARCH}", "FROM X", "  # --mount=from=a:1@"+sumB, "  # --mount=from=a:1@"+sumB,
		"from=a:1@"+sumB, "from=X").Replace(taking)
	assert.Equal(t, want, string(replaced))

	broken := []byte("FROM team/ba\\\nse:1\n")
	images = Images(broken)
	require.Len(t, images, 1)
	assert.Equal(t, "team/base:1", images[0].Name)
	_, err = ReplaceImages(broken, images, func(Image) string { return "X" })
	assert.ErrorContains(t, err, "line 1: FROM team/base:1 doesn't stand on one line")
}

func TestMoveDigests(t *testing.T) {
	move := func(text, name string) (string, error) {
		moved, err := MoveDigests([]byte(text), Images([]byte(text)), []Move{{name, sumA, sumC}})
		return string(moved), err
	}
	moved, err := move(taking, "team/base:1")
	require.NoError(t, err)
	assert.Equal(t, strings.ReplaceAll(taking, sumA, sumC), moved)

	// Another tag with the same digest stays.
	two := "FROM a:1@" + sumA + "\nFROM a:1.2@" + sumA + "\n"
	moved, err = move(two, "a:1")
	require.NoError(t, err)
	assert.Equal(t, "FROM a:1@"+sumC+"\nFROM a:1.2@"+sumA+"\n", moved)

	// So does the same name elsewhere.
	moved, err = move("FROM a:1@"+sumA+"\nFROM b.example/a:1@"+sumA+"\n", "a:1")
	require.NoError(t, err)
	assert.Equal(t, "FROM a:1@"+sumC+"\nFROM b.example/a:1@"+sumA+"\n", moved)

	parts := "ARG TAG=1\nFROM a:$TAG@" + sumA + "\n"
	moved, err = move(parts, "a:1")
	require.NoError(t, err)
	assert.Equal(t, strings.ReplaceAll(parts, sumA, sumC), moved)
	_, err = move(parts+"FROM b:1@"+sumA+"\n", "a:1")
	assert.ErrorContains(t, err, "b:1 and a:1 have the same digest")
	_, err = move("ARG A="+sumA[:20]+"\nARG B="+sumA[20:]+"\nFROM a:1@$A$B\n", "a:1")
	assert.ErrorContains(t, err, "put together from variables")
}

// FuzzImages: what is replaced by itself leaves the file as it is.
func FuzzImages(f *testing.F) {
	f.Add(taking)
	f.Add("FROM a\\\n:1\nCOPY --from=b:2 --from=c / /\n")
	f.Add("ONBUILD COPY --from=a:1 / /\nFROM \"a:1\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		images := Images([]byte(text))
		same, err := ReplaceImages([]byte(text), images, func(i Image) string { return i.Text })
		if err == nil {
			assert.Equal(t, text, string(same))
		}
	})
}
