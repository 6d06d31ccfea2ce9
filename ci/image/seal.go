package image

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/berthdev/berth/docker/daemon"
)

// Labels by which an image that Docker has proves by itself that it is one that
// Berth made, to whoever asks and without a record. Images that are made from it
// inherit the labels, but can't match them.
const (
	labelSeal = "dev.berth.seal" // SHA-256 of the configuration without this label, and of the list of layers
	// labelManifest has the size of the configuration, and digest/size of each layer, or digest/size/type if that
	// isn't compressed by gzip: with the ID, all of the manifest.
	labelManifest = "dev.berth.manifest"
)

// sizeDigits is how many digits the size of the configuration has in its own
// label, so that it doesn't depend on itself.
const sizeDigits = 8

// seal returns the image with the labels.
func seal(img v1.Image) (v1.Image, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	if config.Config.Labels == nil {
		config.Config.Labels = map[string]string{}
	}
	labels := config.Config.Labels
	delete(labels, labelSeal)
	layers := ""
	for _, l := range manifest.Layers {
		layers += fmt.Sprintf(" %s/%d", l.Digest, l.Size)
		if l.MediaType != types.OCILayer { // of a base image
			layers += "/" + string(l.MediaType)
		}
	}
	setSize := func(n int) { labels[labelManifest] = fmt.Sprintf("%0*d", sizeDigits, n) + layers }
	setSize(0)
	labels[labelSeal] = strings.Repeat("0", sha256.Size*2) // its length counts
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	setSize(len(data))
	labels[labelSeal] = sealOf(fromConfig(config))
	return mutate.ConfigFile(img, config)
}

// unsealed returns a configuration without the labels, which follow from the rest.
func unsealed(c *v1.ConfigFile) *v1.ConfigFile {
	c = c.DeepCopy()
	delete(c.Config.Labels, labelSeal)
	delete(c.Config.Labels, labelManifest)
	return c
}

// Sealed reports whether an image in Docker is, in every layer and setting, one
// that Canonical sealed.
func Sealed(i daemon.Image) bool {
	return i.Labels[labelSeal] != "" && i.Labels[labelSeal] == sealOf(i)
}

// SealedConfig reports the same of an image by its configuration.
func SealedConfig(c *v1.ConfigFile) bool { return Sealed(fromConfig(c)) }

func sealOf(i daemon.Image) string {
	labels := maps.Clone(i.Labels)
	delete(labels, labelSeal)
	list := func(l []string) []string { return append([]string{}, l...) } // nil and empty are the same
	c := i.Config
	data, err := json.Marshal([]any{
		labels, list(i.Layers), list(i.Entrypoint), list(i.Command),
		c.Created.UTC(), c.OS, c.Architecture, c.User, c.WorkingDir, c.StopSignal,
		list(c.Env), list(c.Shell), list(c.OnBuild), list(c.Volumes), list(c.Ports), list(c.Healthcheck),
	})
	if err != nil {
		panic(err) // strings alone
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// fromConfig returns what Docker says of an image with this configuration.
func fromConfig(c *v1.ConfigFile) daemon.Image {
	i := daemon.Image{
		Labels: c.Config.Labels, Entrypoint: c.Config.Entrypoint, Command: c.Config.Cmd,
		Config: daemon.ImageConfig{
			Created: c.Created.Time, OS: c.OS, Architecture: c.Architecture,
			User: c.Config.User, WorkingDir: c.Config.WorkingDir, StopSignal: c.Config.StopSignal,
			Env: c.Config.Env, Shell: c.Config.Shell, OnBuild: c.Config.OnBuild,
			Volumes: slices.Sorted(maps.Keys(c.Config.Volumes)), Ports: slices.Sorted(maps.Keys(c.Config.ExposedPorts)),
		},
	}
	if c.Config.Healthcheck != nil {
		i.Config.Healthcheck = c.Config.Healthcheck.Test
	}
	for _, l := range c.RootFS.DiffIDs {
		i.Layers = append(i.Layers, l.String())
	}
	return i
}

// SealedDigest returns the digest of the manifest of a sealed image, "" if it has
// no such label. The daemon must name images by their configuration, as Docker's
// classic store does.
func SealedDigest(i daemon.Image) string {
	fields := strings.Fields(i.Labels[labelManifest])
	id, err := v1.NewHash(i.ID)
	if err != nil || len(fields) == 0 {
		return ""
	}
	size, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return ""
	}
	m := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1,
		Config: v1.Descriptor{MediaType: types.OCIConfigJSON, Size: size, Digest: id},
		Layers: []v1.Descriptor{},
	}
	for _, f := range fields[1:] {
		digest, size, _ := strings.Cut(f, "/")
		size, mediaType, _ := strings.Cut(size, "/")
		d := v1.Descriptor{MediaType: cmp.Or(types.MediaType(mediaType), types.OCILayer)}
		if d.Digest, err = v1.NewHash(digest); err == nil {
			d.Size, err = strconv.ParseInt(size, 10, 64)
		}
		if err != nil {
			return ""
		}
		m.Layers = append(m.Layers, d)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
