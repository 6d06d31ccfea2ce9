//go:build mage

package main

import "github.com/berthdev/berth/ci"

// project is what Berth builds here. To take Berth for your own code, edit
// this, docker/packages.toml and docker/Dockerfile: nothing else names them.
var project = ci.Project{
	Name:       "demo-cnn",
	Dockerfile: "docker/Dockerfile",
	Packages:   "docker/packages.toml",
	Lock:       "docker/packages.lock",
	BaseStage:  "base",
	BaseDigest: "docker/base.digest",
	GoLock:     "docker/golang.lock",
	GoPackages: []string{"./trainer"},
	Smoke: []string{
		"bash --version",
		"trainer smoke",
	},
	Data: ci.DataSet{Package: "dataset-fashion-mnist", Folder: "usr/share/datasets/fashion-mnist"},
	Train: "cd /my_workspace && mkdir -p artifacts/train && exec trainer train --data-dir=/usr/share/datasets/fashion-mnist" +
		" --checkpoint-dir=artifacts/train --json=artifacts/train/run.json --curve=artifacts/train/curve.png",
}
