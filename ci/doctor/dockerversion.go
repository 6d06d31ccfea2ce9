package doctor

import (
	"strconv"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// oldestDocker is the oldest version that Berth's tests run on.
const oldestDocker = "20.10"

// dockerVersion is whether the daemon is old; which version it is, docker says. Podman's
// versions are its own.
func dockerVersion(h Host) Finding {
	v := h.Docker.Info.Version
	if h.Docker.API == "" || h.Docker.Info.Podman() {
		return Finding{}
	}
	if before(v, oldestDocker) {
		return found(trouble.OldDocker, v)
	}
	return Finding{}
}

// before reports whether a version of numbers and dots comes before another. What follows
// the numbers, as in "20.10.24+dfsg1", doesn't count. What isn't a version comes before none.
func before(version, than string) bool {
	have, want := numbers(version), numbers(than)
	if len(have) == 0 {
		return false
	}
	for i, w := range want {
		h := 0
		if i < len(have) {
			h = have[i]
		}
		if h != w {
			return h < w
		}
	}
	return false
}

func numbers(version string) (all []int) {
	for part := range strings.SplitSeq(version, ".") {
		digits := part[:len(part)-len(strings.TrimLeft(part, "0123456789"))]
		n, err := strconv.Atoi(digits)
		if err != nil {
			break
		}
		all = append(all, n)
		if digits != part {
			break
		}
	}
	return all
}
