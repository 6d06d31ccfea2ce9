package targets

import "context"

// Build makes the pinned image and loads it into Docker. When nothing changed
// it is done at once.
func Build(
	ctx context.Context,
	t *string, // tag of the image (default: the project's name and :latest)
	o *string, // also write the image as an OCI archive to this file
	from *string, // repository to pull the image from if it has it, or none (default: the project's registry, if any)
	locked *bool, // fail when a locked package is gone, instead of resolving the lock again
	json *bool, // print the result as JSON
) error {
	return commands().Build(ctx, BuildFlags{Tag: deref(t), Output: deref(o), From: deref(from), Locked: deref(locked), JSON: deref(json)})
}

// BuildFlags are those of Build.
type BuildFlags struct {
	Tag, Output, From string
	Locked, JSON      bool
}

// Verify builds twice, each time on an engine with fresh state, and fails unless
// both images are the same bit for bit. It names what differs. With -image it builds
// once, and compares that with an image in a registry.
func Verify(
	ctx context.Context,
	image *string, // prove that this checkout builds this image of a registry
	key *string, // with -image: public key (PEM) that its provenance must be signed with (default: the project's, if any)
	locked *bool, // fail when a locked package is gone, instead of resolving the lock again
	json *bool, // print the result as JSON
) error {
	return commands().Verify(ctx, VerifyFlags{Image: deref(image), Key: deref(key), Locked: deref(locked), JSON: deref(json)})
}

// VerifyFlags are those of Verify.
type VerifyFlags struct {
	Image, Key   string
	Locked, JSON bool
}

// Publish builds the image and pushes it to a registry with the digest that build prints,
// an SPDX list of what is in it, and SLSA provenance.
func Publish(
	ctx context.Context,
	to *string, // repository, perhaps with a tag (default: the project's registry; tag latest)
	key *string, // private key (PEM) to sign the provenance with
	locked *bool, // fail when a locked package is gone, instead of resolving the lock again
	json *bool, // print the result as JSON
) error {
	return commands().Publish(ctx, PublishFlags{To: deref(to), Key: deref(key), Locked: deref(locked), JSON: deref(json)})
}

// PublishFlags are those of Publish.
type PublishFlags struct {
	To, Key      string
	Locked, JSON bool
}

// Pin resolves what the project asks for as it is available now, writes the locks
// and the digest of the base stage, and prints what changed.
func Pin(
	ctx context.Context,
	check *bool, // change nothing; exit with 4 unless the locks are what is asked for
	dry *bool, // change nothing; print all that would be locked, name and version a line
	base *bool, // move the digests of base images in the Dockerfile instead, to what their tags name now
	json *bool, // with -dry: as JSON
) error {
	return commands().Pin(ctx, PinFlags{Check: deref(check), Dry: deref(dry), Base: deref(base), JSON: deref(json)})
}

// PinFlags are those of Pin.
type PinFlags struct{ Check, Dry, Base, JSON bool }

// Why prints which wish brings a package into the image, and by which other packages. It
// resolves what is asked for as it is available now.
func Why(ctx context.Context, name string) error { return commands().Why(ctx, name) }

// Materials writes what the Dockerfile takes in addition to the checkout's own
// files, such as rootfs.tar, so that plain docker build can build it too.
func Materials(
	ctx context.Context,
	o *string, // folder to write to (default: the root of the build context)
	locked *bool, // fail when a locked package is gone, instead of resolving the lock again
) error {
	return commands().Materials(ctx, MaterialsFlags{Output: deref(o), Locked: deref(locked)})
}

// MaterialsFlags are those of Materials.
type MaterialsFlags struct {
	Output string
	Locked bool
}

// Clean removes what killed runs and builds left behind. What is in use, and
// what isn't Berth's, stays.
func Clean(ctx context.Context) error { return commands().Clean(ctx) }
