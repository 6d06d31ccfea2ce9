package doctor

import "github.com/berthdev/berth/internal/trouble"

// engineContainer is the Dagger engine, which builds start by themselves.
func engineContainer(h Host) Finding {
	e := h.Engine
	switch {
	case e.Named != "":
		return fine("the one that you named: " + e.Named)
	case h.Docker.API == "":
		return Finding{}
	case e.Err != "":
		return found(trouble.EngineBroken, e.Err)
	case e.State.Foreign:
		return found(trouble.ForeignEngine, e.State.Name)
	case e.State.Name == "":
		return Finding{}
	case e.State.Container == "":
		return fine("none yet: the first build makes " + e.State.Name)
	case !e.State.Current:
		return fine(e.State.Name + ", out of date: the next build replaces it")
	}
	return fine(e.State.Name + ", " + e.State.Container)
}
