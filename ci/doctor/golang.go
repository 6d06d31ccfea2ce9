package doctor

import (
	"fmt"
	"go/version"

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
	is := fmt.Sprintf("Go %s at %s", g.Version, g.Path)
	older := version.IsValid("go"+g.Version) && version.Compare("go"+g.Version, "go"+g.Needs) < 0
	switch {
	case older && g.Local:
		return found(trouble.OldGo, fmt.Sprintf("%s; Berth needs %s, and GOTOOLCHAIN is local", is, g.Needs))
	case older:
		return fine(fmt.Sprintf("%s, which fetches the %s that Berth needs", is, g.Needs))
	}
	return fine(is)
}
