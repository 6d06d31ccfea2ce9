package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A Difference is one thing in which two images differ.
type Difference struct {
	Layer int    // index from the lowest, -1 for the configuration
	Path  string // of the file in the image, or field of the configuration
	Kind  string // content, type, mode, owner, time, link, device, attributes, missing, encoding, value or layers
	A, B  string // what one image has and the other
}

func (d Difference) String() string {
	where := fmt.Sprintf("layer %d: /%s", d.Layer, shown(d.Path))
	if d.Kind == "encoding" {
		where = fmt.Sprintf("layer %d", d.Layer)
	}
	if d.Layer < 0 {
		where = "configuration: " + shown(d.Path)
	}
	return fmt.Sprintf("%s: %s differs: %s, %s", where, d.Kind, shown(d.A), shown(d.B))
}

// shown quotes what would move a terminal's cursor or turn its text around: the image may be a
// stranger's.
func shown(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return strconv.Quote(s)
}

// Diff lists in what two images differ, layer by layer, by path. It is empty
// if and only if layers, as stored, and configurations are equal. Layers that
// differ though every file in them is the same (in order, tar format or
// compression) are one difference of the kind encoding, without a path.
// What an image says of its layers is believed of none: they are read.
func Diff(ctx context.Context, a, b v1.Image) ([]Difference, error) {
	configA, err := a.ConfigFile()
	if err != nil {
		return nil, err
	}
	configB, err := b.ConfigFile()
	if err != nil {
		return nil, err
	}
	all, err := diffConfigs(configA, configB)
	if err != nil {
		return nil, err
	}
	layersA, err := a.Layers()
	if err != nil {
		return nil, err
	}
	layersB, err := b.Layers()
	if err != nil {
		return nil, err
	}
	if na, nb := len(layersA), len(layersB); na != nb {
		return append(all, Difference{-1, "rootfs", "layers", fmt.Sprint(na), fmt.Sprint(nb)}), nil
	}
	same := true
	for i := range layersA {
		digestA, err := layersA[i].Digest()
		if err != nil {
			return nil, err
		}
		digestB, err := layersB[i].Digest()
		if err != nil {
			return nil, err
		}
		if digestA == digestB {
			continue
		}
		same = false
		filesA, err := readLayer(ctx, layersA[i])
		if err != nil {
			return nil, err
		}
		filesB, err := readLayer(ctx, layersB[i])
		if err != nil {
			return nil, err
		}
		files := diffLayers(i, filesA, filesB)
		if len(files) == 0 {
			files = []Difference{{Layer: i, Kind: "encoding", A: digestA.String(), B: digestB.String()}}
		}
		all = append(all, files...)
	}
	// Other layers have other diff IDs. With the same ones, one of the configurations isn't true.
	if ia, ib := configA.RootFS.DiffIDs, configB.RootFS.DiffIDs; same && !slices.Equal(ia, ib) {
		all = append(all, Difference{-1, "rootfs", "value", fmt.Sprint(ia), fmt.Sprint(ib)})
	}
	return all, nil
}

// A file is what a layer says of one path.
type file struct {
	header *tar.Header
	sum    string
}

func readLayer(ctx context.Context, l v1.Layer) (map[string]file, error) {
	rc, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	files := map[string]file{}
	r := tar.NewReader(&contextReader{ctx, rc})
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files, nil
		} else if err != nil {
			return nil, err
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return nil, err
		}
		files[entryName(h.Name)] = file{h, fmt.Sprintf("%x", sum.Sum(nil))}
	}
}

func diffLayers(layer int, a, b map[string]file) (all []Difference) {
	paths := maps.Clone(a)
	maps.Copy(paths, b)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		fa, inA := a[path]
		fb, inB := b[path]
		if !inA || !inB {
			all = append(all, Difference{layer, path, "missing", presence(inA), presence(inB)})
			continue
		}
		compare := func(kind string, va, vb any) {
			if sa, sb := fmt.Sprint(va), fmt.Sprint(vb); sa != sb {
				all = append(all, Difference{layer, path, kind, sa, sb})
			}
		}
		ha, hb := fa.header, fb.header
		compare("type", string(ha.Typeflag), string(hb.Typeflag))
		compare("content", size(fa), size(fb))
		compare("mode", fmt.Sprintf("%#o", ha.Mode), fmt.Sprintf("%#o", hb.Mode))
		compare("owner", fmt.Sprintf("%d:%d", ha.Uid, ha.Gid), fmt.Sprintf("%d:%d", hb.Uid, hb.Gid))
		compare("time", ha.ModTime.UTC(), hb.ModTime.UTC())
		compare("link", ha.Linkname, hb.Linkname)
		compare("device", fmt.Sprintf("%d,%d", ha.Devmajor, ha.Devminor), fmt.Sprintf("%d,%d", hb.Devmajor, hb.Devminor))
		compare("attributes", xattrs(ha), xattrs(hb))
	}
	return all
}

// xattrs returns the extended attributes of an entry, as the PAX records that hold them.
func xattrs(h *tar.Header) map[string]string {
	var all map[string]string
	for k, v := range h.PAXRecords {
		if strings.HasPrefix(k, xattrPrefix) {
			if all == nil {
				all = map[string]string{}
			}
			all[k] = v
		}
	}
	return all
}

func size(f file) string { return fmt.Sprintf("%d bytes sha256:%.12s", f.header.Size, f.sum) }

func presence(there bool) string {
	if there {
		return "there"
	}
	return "not there"
}

// diffConfigs compares configurations but for the layers' diff IDs.
func diffConfigs(a, b *v1.ConfigFile) (all []Difference, err error) {
	fieldsA, err := fields(unsealed(a))
	if err != nil {
		return nil, err
	}
	fieldsB, err := fields(unsealed(b))
	if err != nil {
		return nil, err
	}
	names := maps.Clone(fieldsA)
	maps.Copy(names, fieldsB)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if va, vb := string(fieldsA[name]), string(fieldsB[name]); name != "rootfs" && va != vb {
			all = append(all, Difference{-1, name, "value", va, vb})
		}
	}
	return all, nil
}

func fields(c *v1.ConfigFile) (map[string]json.RawMessage, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	return all, json.Unmarshal(data, &all)
}
