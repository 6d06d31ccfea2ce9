package doctor

import "github.com/berthdev/berth/internal/trouble"

// wayland is whether windows open by Wayland.
func wayland(h Host) Finding {
	switch {
	case h.Env["WAYLAND_DISPLAY"] == "":
		return Finding{}
	case h.Display.WaylandErr != "":
		return found(trouble.WaylandSilent, h.Display.WaylandErr)
	}
	return fine(h.Display.Wayland.String())
}
