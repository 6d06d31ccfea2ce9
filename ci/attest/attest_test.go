package attest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// imageOf makes an image with a layer for each set of files, lowest first.
func imageOf(t *testing.T, layers ...map[string]string) v1.Image {
	t.Helper()
	img := v1.Image(empty.Image)
	for _, files := range layers {
		var buffer bytes.Buffer
		w := tar.NewWriter(&buffer)
		for name, text := range files {
			require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}))
			_, err := w.Write([]byte(text))
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil })
		require.NoError(t, err)
		img, err = mutate.AppendLayers(img, layer)
		require.NoError(t, err)
	}
	return img
}

const status = `Package: libc6
Status: install ok installed
Source: glibc (2.36-9)
Architecture: amd64
Version: 2.36-9+deb12u9
Description: GNU C Library
 with a second line

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
`

func contentsOf(t *testing.T) []Component {
	t.Helper()
	program := filepath.Join(t.TempDir(), "mage")
	out, err := exec.Command("go", "build", "-o", program, "github.com/magefile/mage").CombinedOutput()
	require.NoError(t, err, "%s", out)
	tool, err := os.ReadFile(program)
	require.NoError(t, err)
	found, err := Contents(imageOf(t,
		map[string]string{"var/lib/dpkg/status": "Package: old\nStatus: install ok installed\nVersion: 0\n", "usr/bin/tool": string(tool)},
		map[string]string{
			"var/lib/dpkg/status": status,
			"usr/lib/os-release":  "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
			"usr/lib/python3/dist-packages/Some_Thing-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: Some_Thing\nVersion: 1.2\n\nA text\nthat isn't: a header\n",
			"bin/other": "\x7fELF, but not really, and long enough to be looked at, as a program would be",
			"bin/sh":    "#!/bin/sh\n" + strings.Repeat("#", 100),
		}))
	require.NoError(t, err)
	return found
}

func TestContents(t *testing.T) {
	found := contentsOf(t)
	var debs, python []Component
	modules := map[string]string{}
	for _, c := range found {
		switch c.Kind {
		case "deb":
			debs = append(debs, c)
		case "pypi":
			python = append(python, c)
		default:
			assert.Equal(t, "golang", c.Kind)
			assert.Equal(t, "/usr/bin/tool", c.Where)
			modules[c.Name] = c.Version
		}
	}
	assert.Equal(t, []Component{
		{Kind: "deb", Name: "bash", Version: "5.2.15-2+b7", Architecture: "amd64", System: "debian", Release: "12"},
		{Kind: "deb", Name: "libc6", Version: "2.36-9+deb12u9", Architecture: "amd64", Source: "glibc", System: "debian", Release: "12"},
	}, debs)
	assert.Equal(t, []Component{{Kind: "pypi", Name: "Some_Thing", Version: "1.2", Where: "/usr/lib/python3/dist-packages/Some_Thing-1.2.dist-info"}}, python)
	assert.NotEmpty(t, modules["stdlib"])
	assert.Regexp(t, `^v\d`, modules["github.com/magefile/mage"])
}

// Images without dpkg have a file for each package, and one with sums of its files.
func TestContentsWithoutDpkg(t *testing.T) {
	found, err := Contents(imageOf(t, map[string]string{
		"var/lib/dpkg/status.d/libc6":           "Package: libc6\nSource: glibc\nArchitecture: amd64\nVersion: 2.36-9+deb12u9\n",
		"var/lib/dpkg/status.d/libc6.md5sums":   "e4a6a7b5a6ad2a5fd5bbbd4ee3a3a1c9  lib/x86_64-linux-gnu/libc.so.6\n",
		"var/lib/dpkg/status.d/libssl1.1":       "Package: libssl1.1\nArchitecture: amd64\nVersion: 1.1.1w-0+deb11u1\n",
		"var/lib/dpkg/status.d/libssl1.md5sums": "e4a6a7b5a6ad2a5fd5bbbd4ee3a3a1c9  usr/lib/x86_64-linux-gnu/libssl.so.1.1\n",
		"etc/os-release":                        "ID='ubuntu'\nID_LIKE=debian\nVERSION_ID=\"24.04\"\n",
		"usr/lib/os-release":                    "ID=debian\nVERSION_ID=12\n",
	}))
	require.NoError(t, err)
	assert.Equal(t, []Component{
		{Kind: "deb", Name: "libc6", Version: "2.36-9+deb12u9", Architecture: "amd64", Source: "glibc", System: "ubuntu", Release: "24.04"},
		{Kind: "deb", Name: "libssl1.1", Version: "1.1.1w-0+deb11u1", Architecture: "amd64", System: "ubuntu", Release: "24.04"},
	}, found)
}

// Scanners look a package up in the list of its distribution (purl-spec, types/deb-definition.json).
func TestPackageURLs(t *testing.T) {
	for want, c := range map[string]Component{
		"pkg:deb/debian/a@1?arch=amd64":                                   {},
		"pkg:deb/debian/a@1?arch=amd64&distro=debian-12":                  {System: "debian", Release: "12"},
		"pkg:deb/kali/a@1?arch=amd64":                                     {System: "kali"},
		"pkg:deb/ubuntu/a@1?arch=amd64&distro=ubuntu-24.04&upstream=ab-c": {System: "ubuntu", Release: "24.04", Source: "ab-c"},
	} {
		c.Kind, c.Name, c.Version, c.Architecture = "deb", "a", "1", "amd64"
		assert.Equal(t, want, c.purl())
	}
}

var subject = Subject{Name: "registry.example.org/team/image", Digest: "sha256:" + strings.Repeat("a", 64), Epoch: time.Unix(1e9, 0)}

// TestSPDX holds the list against SPDX's own schema, which a module has that is only downloaded.
func TestSPDX(t *testing.T) {
	locked := []Component{
		{Kind: "deb", Name: "bash", Version: "5.2.15-2+b7", Architecture: "amd64", SHA256: strings.Repeat("b", 64), URL: "https://example.org/bash.deb"},
		{Kind: "pypi", Name: "some-thing", Version: "1.2", SHA256: strings.Repeat("c", 64), URL: "https://example.org/some_thing.whl"},
	}
	text, err := SPDX(subject, contentsOf(t), locked)
	require.NoError(t, err)
	again, err := SPDX(subject, contentsOf(t), locked)
	require.NoError(t, err)
	assert.Equal(t, string(text), string(again))
	assert.Contains(t, string(text), `"https://example.org/bash.deb"`)
	assert.Contains(t, string(text), `"https://example.org/some_thing.whl"`, "a lock has another spelling")
	assert.Contains(t, string(text), `"pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64\u0026distro=debian-12\u0026upstream=glibc"`)
	assert.Contains(t, string(text), `"pkg:pypi/some-thing@1.2"`)

	download := exec.Command("go", "mod", "download", "-json", "github.com/anchore/syft")
	download.Dir = "testdata/schema"
	download.Stderr = os.Stderr
	out, err := download.Output()
	require.NoError(t, err, "%s", out)
	var module struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &module))
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(module.Dir, "schema/spdx-json/spdx-schema-2.3.json"))
	require.NoError(t, err)
	validate := func(text []byte) error {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		require.NoError(t, err)
		return schema.Validate(value)
	}
	require.NoError(t, validate(text))
	// The test can fail.
	require.Error(t, validate(bytes.Replace(text, []byte(`"algorithm":"SHA256"`), []byte(`"algorithm":"SHA999"`), 1)))
	require.Error(t, validate(bytes.Replace(text, []byte(`"SPDXID"`), []byte(`"ID"`), 1)))
}

func TestProvenance(t *testing.T) {
	from := Source{
		Repository: "https://example.org/r.git", Commit: strings.Repeat("c", 40), Dockerfile: "docker/Dockerfile",
		Inputs: "abc", Locked: map[string]string{"rootfs.tar": "d", "golang.tar": "e"}, Recipe: "4",
		Images: []string{"example.org/base:1@sha256:" + strings.Repeat("b", 64)},
	}
	text, err := Provenance(subject, from, []byte("{}"))
	require.NoError(t, err)
	assert.JSONEq(t, `{
		"_type": "https://in-toto.io/Statement/v1",
		"subject": [{"name": "registry.example.org/team/image", "digest": {"sha256": "`+strings.Repeat("a", 64)+`"}}],
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": {
			"buildDefinition": {
				"buildType": "`+buildType+`",
				"externalParameters": {"dockerfile": "docker/Dockerfile", "inputs": "abc"},
				"internalParameters": {"recipe": "4", "epoch": "2001-09-09T01:46:40Z", "uncommittedChanges": false},
				"resolvedDependencies": [
					{"name": "source", "uri": "git+https://example.org/r.git@`+from.Commit+`", "digest": {"gitCommit": "`+from.Commit+`"}},
					{"name": "golang.tar", "digest": {"berthInput": "e"}},
					{"name": "rootfs.tar", "digest": {"berthInput": "d"}},
					{"name": "example.org/base:1", "digest": {"sha256": "`+strings.Repeat("b", 64)+`"}}
				]
			},
			"runDetails": {
				"builder": {"id": "https://github.com/berthdev/berth"},
				"byproducts": [{"name": "spdx.json", "mediaType": "application/spdx+json",
					"digest": {"sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}]
			}
		}
	}`, string(text))
	digests, err := Subjects(text)
	require.NoError(t, err)
	assert.Equal(t, []string{subject.Digest}, digests)
	_, err = Subjects([]byte(`{"_type":"other"}`))
	assert.Error(t, err)
}

// keys makes a pair, as PEM.
func keys(t *testing.T) (private, public []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return pems(t, key)
}

func pems(t *testing.T, key crypto.Signer) (private, public []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	der, err = x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestSignature(t *testing.T) {
	private, public := keys(t)
	signer, err := ReadKey(private)
	require.NoError(t, err)
	verifier, err := ReadKey(public)
	require.NoError(t, err)
	_, other := keys(t)
	stranger, err := ReadKey(other)
	require.NoError(t, err)

	envelope, err := signer.Sign(t.Context(), []byte(`{"a":1}`))
	require.NoError(t, err)
	text, err := verifier.Open(t.Context(), envelope)
	require.NoError(t, err)
	assert.Equal(t, `{"a":1}`, string(text))

	_, err = stranger.Open(t.Context(), envelope)
	assert.ErrorIs(t, err, ErrNotSigned)
	_, err = verifier.Open(t.Context(), bytes.Replace(envelope, []byte(`"payload":"eyJ`), []byte(`"payload":"eyK`), 1))
	assert.ErrorIs(t, err, ErrNotSigned)
	_, err = verifier.Open(t.Context(), []byte("nonsense"))
	assert.ErrorIs(t, err, ErrNotSigned)
	_, err = verifier.Open(t.Context(), []byte(`{"payloadType":"x","payload":"","signatures":[]}`))
	assert.ErrorIs(t, err, ErrNotSigned)
	_, err = verifier.Sign(t.Context(), []byte("{}"))
	assert.Error(t, err, "the public half can't sign")
	for _, wrong := range []string{"", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"} {
		_, err := ReadKey([]byte(wrong))
		assert.ErrorContains(t, err, "reading the key")
	}
}

// TestKinds signs with keys of each kind, in the form that openssl genpkey writes.
func TestKinds(t *testing.T) {
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	factors, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, key := range []crypto.Signer{curve, factors} {
		private, public := pems(t, key)
		signer, err := ReadKey(private)
		require.NoError(t, err)
		envelope, err := signer.Sign(t.Context(), []byte("{}"))
		require.NoError(t, err)
		verifier, err := ReadKey(public)
		require.NoError(t, err)
		_, err = verifier.Open(t.Context(), envelope)
		require.NoError(t, err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"","sig":"AAAA"}]}`))
	public := []byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n")
	key, err := ReadKey(public)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text []byte) {
		_, err := key.Open(context.Background(), text)
		assert.ErrorIs(t, err, ErrNotSigned)
		Subjects(text)
		pythonPackage(bytes.NewReader(text), "")
		debianPackages(bytes.NewReader(text))
		readSystem(bytes.NewReader(text))
		program := append([]byte(elf), text...)
		goModules(bytes.NewReader(program), int64(len(program)), "")
	})
}
