package trouble

// What keeps windows from opening. Programs without windows don't care.
var (
	NoDisplay = &Row{
		Name: "no-display", State: OK,
		Wrong: "there is no display here: neither DISPLAY nor WAYLAND_DISPLAY is set",
		Means: "Everything works but windows. That is as it should be on a server, and over ssh.",
		Mend:  everywhere("For windows over ssh, come by\n\tssh -X HOST"),
	}
	NoX11 = &Row{
		Name: "x11-silent", State: Warning,
		Wrong: "DISPLAY names an X server that doesn't answer",
		Means: "`run` goes on without windows, and says so. In a terminal multiplexer DISPLAY is often that of an earlier login.",
		Mend: everywhere("Try a program outside of the container first; in tmux or screen, take DISPLAY from a new " +
			"login:\n\txdpyinfo\n\techo $DISPLAY"),
	}
	X11Refused = &Row{
		Name: "x11-refused", State: Warning,
		Wrong: "the X server doesn't admit you: the cookie is missing, or isn't its own",
		Means: "`run` goes on without windows, and says so. The cookie is in the file that XAUTHORITY names, or in ~/.Xauthority; " +
			"another user's, as after sudo or su, " +
			"isn't yours.",
		Mend: everywhere("Look whether there is one, and try a program outside of the container. At a desktop, XAUTHORITY names the " +
			"file; over ssh, come anew by " +
			"ssh -X. (xhost + lets everybody in: don't.)\n\txauth list\n\txdpyinfo"),
	}
	WaylandSilent = &Row{
		Name: "wayland-silent", State: Warning,
		Wrong: "no Wayland compositor answers where WAYLAND_DISPLAY says",
		Means: "Only a person who is logged in at a Wayland desktop has one. `run -gui=wayland` fails. X11, where there is one, comes " +
			"first anyway.",
		Mend: everywhere("Log in at a Wayland desktop; or, where there is X11, forget about Wayland in this terminal:\n\tunset " +
			"WAYLAND_DISPLAY"),
	}
)

var display = []*Row{NoDisplay, NoX11, X11Refused, WaylandSilent}
