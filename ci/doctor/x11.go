package doctor

import "github.com/berthdev/berth/internal/trouble"

// x11 is whether windows open by X11, and by whose cookie.
func x11(h Host) Finding {
	if h.Env["DISPLAY"] == "" {
		if h.Env["WAYLAND_DISPLAY"] != "" {
			return Finding{}
		}
		where := "there is no display"
		if h.Env["SSH_CONNECTION"] != "" {
			where += " in this ssh session"
		}
		return found(trouble.NoDisplay, where+": everything works but windows")
	}
	switch d := h.Display; {
	case d.X11Err == "":
		return fine(d.X11.String())
	case d.X11Refused:
		return found(trouble.X11Refused, d.X11Err)
	default:
		return found(trouble.NoX11, d.X11Err)
	}
}
