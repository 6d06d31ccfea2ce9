// Package rootfs is what containers have beside their packages: settings of the
// shell, and what a new home starts with. It is data alone, which travels with the
// module.
package rootfs

import (
	"embed"
	"io/fs"
)

//go:embed etc all:home/skel
var files embed.FS

// Etc is what images have in /etc.
func Etc() fs.FS { return sub("etc") }

// Skeleton is what a new home starts with.
func Skeleton() fs.FS { return sub("home/skel") }

func sub(dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name isn't a path
	}
	return f
}
