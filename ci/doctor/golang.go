package doctor

import (
	"cmp"
	"fmt"
	"go/version"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// needsGo is what go.mod asks for; a test compares them.
const needsGo = "1.26.0"

// goCommand is the go command, which mage is run by.
func goCommand(h Host) Finding {
	g := h.Go
	if g.Path == "" {
		return found(trouble.NoGo, "")
	}
	is, runs := fmt.Sprintf("Go %s at %s", g.Version, g.Path), "go"+g.Version
	name, suffix, _ := strings.Cut(g.Toolchain, "+")
	if version.IsValid(name) { // of a toolchain that runs in place of that
		is, runs = fmt.Sprintf("%s, which runs %s", is, name), name
	}
	older := version.IsValid(runs) && version.Compare(runs, "go"+g.Needs) < 0
	switch fetches := name == "auto" || suffix == "auto"; {
	case older && fetches:
		return fine(fmt.Sprintf("%s, which fetches the %s that Berth needs", is, g.Needs))
	case older:
		return found(trouble.OldGo, fmt.Sprintf("%s; Berth needs %s, and GOTOOLCHAIN is %s", is, g.Needs, cmp.Or(g.Toolchain, "unknown to it")))
	}
	return fine(is)
}
