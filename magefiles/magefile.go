//go:build mage

// Berth builds, tests and launches a GPU training container. Exit codes: 0; 1
// failure; 2 usage; 3 a prerequisite is missing; 4 pins or workflows differ; 130
// interrupted; for run, those of docker run; for train, once it trains, those of the
// trainer.
package main

import (
	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/ci/debian"
	"github.com/berthdev/berth/ci/golang"
	"github.com/berthdev/berth/ci/input"
	"github.com/berthdev/berth/magefiles/commands"

	//mage:import
	"github.com/berthdev/berth/magefiles/targets"
)

var berth = targets.Use(commands.Of(ci.Project{
	Name:      "demo-cnn",
	Inputs:    []input.Input{packages, program, compiler},
	BaseStage: "base",
	Home:      "rootfs/home/user",
	Skeleton:  "rootfs/home/skel",
	Lint:      []string{"go tool mage check"},
	Test:      []string{"go test -json -short ./trainer/..."},
	TestStage: "test", TestIgnore: "docker/test.dockerignore",
	Smoke: []string{"bash --version", `trainer smoke --junit="$BERTH_JUNIT" --losses="$BERTH_LOSSES"`},
}))

var (
	packages = debian.Input{}
	program  = golang.Input{Packages: []string{"./trainer/..."}, Tests: true, Cgo: []string{"cuda"}} // of the trainer and its tests
	compiler = debian.Input{Archive: "compiler.tar", Manifest: "docker/compiler.toml", Lock: "docker/compiler.lock"}
)
