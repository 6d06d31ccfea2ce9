package attest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// SPDXType is the media type of an SPDX list as JSON.
const SPDXType = "application/spdx+json"

// A Subject is the image that something is said of.
type Subject struct {
	Name   string    // its repository, without a tag
	Digest string    // of its manifest, sha256:…
	Epoch  time.Time // of its files
}

// SPDX is the list of an image's components in the words of SPDX 2.3, as JSON. Components that
// a lock has get its checksum and URL.
// (spdx.github.io/spdx-spec/v2.3.)
func SPDX(s Subject, contents, locked []Component) ([]byte, error) {
	type key struct{ kind, name, version, architecture string }
	files := map[key]Component{}
	for _, l := range locked {
		files[key{l.Kind, l.canonicalName(), l.Version, l.Architecture}] = l
	}
	const image = "Image"
	hex := strings.TrimPrefix(s.Digest, "sha256:")
	document := v2_3.Document{
		SPDXVersion: v2_3.Version, DataLicense: v2_3.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName: s.Name, DocumentNamespace: "https://github.com/berthdev/berth/spdx/" + url.PathEscape(s.Name) + "/" + hex,
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "berth"}}, Created: s.Epoch.UTC().Format(time.RFC3339),
		},
		Packages: []*v2_3.Package{{
			PackageName: s.Name, PackageSPDXIdentifier: image, PackageVersion: s.Digest, PrimaryPackagePurpose: "CONTAINER",
			PackageDownloadLocation: "NOASSERTION", IsFilesAnalyzedTagPresent: true,
			PackageChecksums: []common.Checksum{{Algorithm: common.SHA256, Value: hex}},
		}},
		Relationships: []*v2_3.Relationship{{
			RefA: common.MakeDocElementID("", "DOCUMENT"), RefB: common.MakeDocElementID("", image), Relationship: common.TypeRelationshipDescribe,
		}},
	}
	for i, c := range contents {
		id := common.ElementID(fmt.Sprintf("Package-%d-%s-%s", i+1, c.Kind, notInIDs.ReplaceAllString(c.Name, "-")))
		p := &v2_3.Package{
			PackageName: c.Name, PackageSPDXIdentifier: id, PackageVersion: c.Version,
			PackageDownloadLocation: "NOASSERTION", IsFilesAnalyzedTagPresent: true,
			PackageExternalReferences: []*v2_3.PackageExternalReference{{
				Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: c.purl(),
			}},
		}
		if c.Where != "" {
			p.PackageSourceInfo = "found in " + c.Where
		}
		if l, ok := files[key{c.Kind, c.canonicalName(), c.Version, c.Architecture}]; ok {
			if l.SHA256 != "" {
				p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: l.SHA256}}
			}
			if l.URL != "" {
				p.PackageDownloadLocation = l.URL
			}
		}
		document.Packages = append(document.Packages, p)
		document.Relationships = append(document.Relationships, &v2_3.Relationship{
			RefA: common.MakeDocElementID("", image), RefB: common.MakeDocElementID("", string(id)), Relationship: common.TypeRelationshipContains,
		})
	}
	return json.Marshal(document)
}

// notInIDs are the characters that identifiers of SPDX can't have.
var notInIDs = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// pythonSeparators are those of names of Python packages that count as one dash (PEP 503).
var pythonSeparators = regexp.MustCompile(`[-_.]+`)

// canonicalName is that under which its kind of packages is known, however it is spelled.
func (c Component) canonicalName() string {
	if c.Kind == "pypi" {
		return pythonSeparators.ReplaceAllString(strings.ToLower(c.Name), "-")
	}
	return c.Name
}

// purl is a component's package URL (github.com/package-url/purl-spec).
func (c Component) purl() string {
	version := ""
	if c.Version != "" && c.Version != "(devel)" {
		version = "@" + url.QueryEscape(c.Version)
	}
	switch c.Kind {
	case "deb":
		name := "pkg:deb/" + cmp.Or(c.System, "debian") + "/" + url.PathEscape(c.Name) + version + "?arch=" + url.QueryEscape(c.Architecture)
		if c.System != "" && c.Release != "" {
			name += "&distro=" + c.System + "-" + c.Release
		}
		if c.Source != "" {
			name += "&upstream=" + url.QueryEscape(c.Source)
		}
		return name
	case "pypi":
		return "pkg:pypi/" + url.PathEscape(c.canonicalName()) + version
	}
	return "pkg:" + c.Kind + "/" + c.Name + version
}
