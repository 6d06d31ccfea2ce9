package doctor

import (
	"fmt"

	"github.com/berthdev/berth/internal/trouble"
)

// A floor is the oldest driver that a version of CUDA's toolkit was made for.
type floor struct{ cuda, driver string }

// floors are those for Linux on x86-64, by NVIDIA's CUDA Toolkit Release Notes, table
// "CUDA Toolkit and Corresponding Driver Versions", as of CUDA 13.1
// (https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html). Libraries of a
// later minor version run on the driver of an earlier one, but PTX, which Berth's trainer
// ships, doesn't: it needs a driver that knows its version.
var floors = []floor{
	{"13.1", "590.44.01"},
	{"13.0", "580.65.06"},
	{"12.9", "575.51.03"},
	{"12.8", "570.26"},
	{"12.6", "560.28.03"},
	{"12.5", "555.42.02"},
	{"12.4", "550.54.14"},
	{"12.3", "545.23.06"},
	{"12.2", "535.54.03"},
	{"12.1", "530.30.02"},
	{"12.0", cuda12},
	{"11.8", cuda118},
	{"11.7", "515.43.04"},
	{"11.6", "510.39.01"},
	{"11.5", "495.29.05"},
	{"11.4", "470.42.01"},
	{"11.2", "460.27.03"},
	{"11.0", "450.36.06"},
	{"10.2", "440.33"},
}

const (
	cuda12  = "525.60.13"
	cuda118 = "520.61.05" // the version of the trainer's PTX, 7.8
)

// newestCUDA is the newest version of CUDA whose toolkit a driver is as new as.
func newestCUDA(driver string) string {
	for _, f := range floors {
		if !before(driver, f.driver) {
			return f.cuda
		}
	}
	return ""
}

// driver is whether the driver is as new as images need it.
func driver(h Host) Finding {
	v := h.GPU.Machine.Driver
	if v == "" { // none, or Windows'
		return Finding{}
	}
	is := "version " + v
	if cuda := newestCUDA(v); cuda != "" {
		is += ", for CUDA up to " + cuda
	}
	switch {
	case before(v, cuda118):
		return found(trouble.DriverTooOld, fmt.Sprintf("%s; CUDA 11.8 needs %s", is, cuda118))
	case before(v, cuda12):
		return found(trouble.DriverBeforeCUDA12, fmt.Sprintf("%s; CUDA 12 needs %s", is, cuda12))
	}
	return fine(is)
}
