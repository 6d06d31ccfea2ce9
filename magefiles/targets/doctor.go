package targets

import "context"

// Doctor looks at this machine and says what keeps Berth from building and running here,
// or from handing on GPUs and the display, and what mends it. It changes nothing.
// Exit code 3: something that is needed is broken; a missing GPU or display isn't needed.
func Doctor(
	ctx context.Context,
	json *bool, // print it as JSON
	row *string, // explain this row of docs/troubleshooting.md, as errors name them, and look at nothing
) error {
	return commands().Doctor(ctx, DoctorFlags{JSON: deref(json), Row: deref(row)})
}

// DoctorFlags are those of Doctor.
type DoctorFlags struct {
	JSON bool
	Row  string
}
