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
	Smoke: []string{
		"bash --version",
		"test -s /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz",
	},
}
