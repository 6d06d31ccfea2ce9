// Package doctor looks at a machine and says what keeps Berth from building and running
// there, or from handing on its GPUs, and what mends it.
//
// Probe reads the world into a Host, and writes nothing. Each check is a file and a pure
// function over that Host; what it finds is a row of package trouble, which has the texts.
package doctor

import (
	"slices"

	"github.com/berthdev/berth/internal/trouble"
)

// A Finding is what a check found. The zero value is a check that doesn't apply here.
type Finding struct {
	Check string
	State trouble.State
	Row   *trouble.Row // what is wrong; nil if nothing is
	Found string       // what there is, in one line
}

// fine is a finding of what is as it should be.
func fine(found string) Finding { return Finding{State: trouble.OK, Found: found} }

// found is a row that holds, with what shows it.
func found(row *trouble.Row, shown string) Finding {
	return Finding{State: row.State, Row: row, Found: shown}
}

// A check has a name, a probe that it can't do without, and a judgement.
type check struct {
	name  string
	probe string
	judge func(Host) Finding
}

// checks are all of them, in the order of the report.
var checks = []check{
	{"platform", ofKernel, platform},
	{"go", ofGo, goCommand},
	{"docker", "", docker},
	{"docker version", "", dockerVersion},
	{"kind of docker", "", dockerKind},
	{"gpu", "", gpus},
	{"device nodes", ofNVIDIA, deviceNodes},
	{"driver", "", driver},
	{"capability", "", capability},
	{"mig", "", partitions},
	{"wsl", ofNVIDIA, wsl},
	{"toolkit", ofNVIDIA, toolkit},
	{"into containers", "", passingOn},
	{"cdi", ofCDI, cdi},
	{"control groups", ofNVIDIA, controlGroups},
	{"display", ofDisplay, x11},
	{"wayland", ofDisplay, wayland},
	{"disk", ofDisks, disk},
	{"cache", ofCache, cacheFolder},
	{"shared memory", ofDisks, sharedMemory},
	{"mirrors", ofMirrors, mirrors},
	{"go modules", ofGo, modules},
	{"engine", ofEngine, engineContainer},
}

// Examine returns what each check that applies to the host found. What a probe had no
// answer to in time isn't judged.
func Examine(h Host) (all []Finding) {
	for _, c := range checks {
		if slices.Contains(h.Silent, c.probe) {
			continue
		}
		if f := c.judge(h); f.State != "" {
			f.Check = c.name
			all = append(all, f)
		}
	}
	return all
}

// Worst is the worst state among findings.
func Worst(all []Finding) trouble.State {
	worst := trouble.OK
	for _, f := range all {
		if f.State.Worse(worst) {
			worst = f.State
		}
	}
	return worst
}
