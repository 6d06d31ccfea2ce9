package debian

import (
	"archive/tar"
	"context"
	_ "embed"
	"fmt"
	"io"
	"path"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/berthdev/berth/internal/cache"
)

// configure is the script that configures the packages, and makes what they leave the same
// each time.
//
//go:embed configure.sh
var configure []byte

// configurePath is where it is in the root file system.
const configurePath = "usr/lib/berth/configure"

// Rootfs writes the packages' files as one uncompressed tar, with a dpkg database in
// which they are unpacked and not yet configured; a script in it does the rest, if the
// packages ask for it. The
// same packages and epoch give the same bytes: entries are sorted, times are the
// epoch, owners are numbers. /bin, /sbin and /lib* are links into /usr, as in
// every Debian since 12. Packages that would write outside the root, or over
// each other, are refused. temp is a folder for temporary files.
func Rootfs(ctx context.Context, w io.Writer, packages Packages, epoch time.Time, temp string, report Progress) error {
	if report == nil {
		report = noProgress{}
	}
	unpacked := make([]*unpackedDeb, len(packages.Files))
	work, workCtx := errgroup.WithContext(ctx)
	work.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range packages.Files {
		work.Go(func() (err error) {
			if workCtx.Err() != nil {
				return context.Cause(workCtx)
			}
			report.Update("Unpacking %s", f.Package)
			if unpacked[i], err = unpackDeb(f.Path, temp); err != nil {
				return fmt.Errorf("unpacking package %s: %w", f.Package, err)
			}
			return nil
		})
	}
	defer func() {
		for _, u := range unpacked {
			if u != nil {
				u.close()
			}
		}
	}()
	if err := work.Wait(); err != nil {
		return err
	}
	tree := newTree()
	for _, u := range unpacked {
		if err := tree.addPackage(u); err != nil {
			return fmt.Errorf("unpacking package %s %s: %w", u.control["Package"], u.control["Version"], err)
		}
	}
	if err := tree.addDatabase(unpacked); err != nil {
		return err
	}
	if packages.Configure {
		if tree[configurePath] != nil {
			return fmt.Errorf("the package %s has a file %s, which is Berth's", tree[configurePath].owner.control["Package"], configurePath)
		}
		tree.directory(path.Dir(configurePath))
		tree[configurePath] = &node{
			header:  &tar.Header{Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(configure))},
			content: &content{data: configure},
		}
	}
	return tree.write(ctx, w, epoch)
}

// RootfsFile makes the root file system as an entry of the cache (see cache.Keep),
// compressed if its name ends in .zst, and returns its path. temp is a folder for
// temporary files on the same file system.
func RootfsFile(ctx context.Context, name string, packages Packages, epoch time.Time, temp string, report Progress) (string, error) {
	path, err := cache.Keep(name, temp, 0o644, func(w io.Writer) error {
		if !strings.HasSuffix(name, ".zst") {
			return Rootfs(ctx, w, packages, epoch, temp, report)
		}
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			return err
		}
		if err := Rootfs(ctx, z, packages, epoch, temp, report); err != nil {
			z.Close()
			return err
		}
		return z.Close()
	})
	if err != nil {
		return "", fmt.Errorf("making the root file system: %w", err)
	}
	return path, nil
}
