package attest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/secure-systems-lab/go-securesystemslib/signerverifier"
)

// Media types of provenance: a statement as it is, and one that is signed.
const (
	StatementType = "application/vnd.in-toto+json"
	EnvelopeType  = "application/vnd.dsse.envelope.v1+json"
)

const (
	statement     = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	buildType     = "https://github.com/berthdev/berth/blob/main/docs/publish.md#what-the-provenance-says"
	builder       = "https://github.com/berthdev/berth"
)

// A Source is what an image was made from.
type Source struct {
	Repository string            // URL of the checkout's git repository, without credentials; "" if unknown
	Commit     string            // hex; "" if unknown
	Changed    bool              // the checkout had changes that weren't committed
	Dockerfile string            // relative to the project's root
	Inputs     string            // hash of everything that the image was made from
	Locked     map[string]string // hashes of the locked inputs, by name
	Images     []string          // those of registries that it was made from, as name:tag@sha256:…
	Recipe     string            // how an image follows from these
}

// Statement types: SLSA provenance 1 (slsa.dev/spec/v1.0/provenance) in an in-toto
// statement 1 (github.com/in-toto/attestation). Only what is used of them.
type (
	descriptor struct {
		Name      string            `json:"name,omitempty"`
		URI       string            `json:"uri,omitempty"`
		Digest    map[string]string `json:"digest,omitempty"`
		MediaType string            `json:"mediaType,omitempty"`
	}
	definition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   map[string]any `json:"externalParameters"`
		InternalParameters   map[string]any `json:"internalParameters,omitempty"`
		ResolvedDependencies []descriptor   `json:"resolvedDependencies,omitempty"`
	}
	details struct {
		Builder    map[string]string `json:"builder"`
		Byproducts []descriptor      `json:"byproducts,omitempty"`
	}
	predicate struct {
		BuildDefinition definition `json:"buildDefinition"`
		RunDetails      details    `json:"runDetails"`
	}
	provenance struct {
		Type          string       `json:"_type"`
		Subject       []descriptor `json:"subject"`
		PredicateType string       `json:"predicateType"`
		Predicate     predicate    `json:"predicate"`
	}
)

// Provenance says what an image was made from, as JSON. It names the SPDX list by its
// digest, so that who signs the one signs the other.
func Provenance(s Subject, from Source, spdx []byte) ([]byte, error) {
	sum := sha256.Sum256(spdx)
	p := provenance{
		Type: statement, PredicateType: predicateType,
		Subject: []descriptor{{Name: s.Name, Digest: map[string]string{"sha256": strings.TrimPrefix(s.Digest, "sha256:")}}},
		Predicate: predicate{
			BuildDefinition: definition{
				BuildType:          buildType,
				ExternalParameters: map[string]any{"dockerfile": from.Dockerfile, "inputs": from.Inputs},
				InternalParameters: map[string]any{"recipe": from.Recipe, "epoch": s.Epoch.UTC()},
			},
			RunDetails: details{
				Builder:    map[string]string{"id": builder},
				Byproducts: []descriptor{{Name: "spdx.json", MediaType: SPDXType, Digest: map[string]string{"sha256": hex.EncodeToString(sum[:])}}},
			},
		},
	}
	d := &p.Predicate.BuildDefinition
	if from.Commit != "" {
		source := descriptor{Name: "source", Digest: map[string]string{"gitCommit": from.Commit}}
		if from.Repository != "" {
			source.URI = "git+" + from.Repository + "@" + from.Commit
		}
		d.ResolvedDependencies = append(d.ResolvedDependencies, source)
		d.InternalParameters["uncommittedChanges"] = from.Changed
	}
	for _, name := range slices.Sorted(maps.Keys(from.Locked)) {
		d.ResolvedDependencies = append(d.ResolvedDependencies, descriptor{Name: name, Digest: map[string]string{"berthInput": from.Locked[name]}})
	}
	for _, image := range from.Images {
		name, digest, _ := strings.Cut(image, "@sha256:")
		d.ResolvedDependencies = append(d.ResolvedDependencies, descriptor{Name: name, Digest: map[string]string{"sha256": digest}})
	}
	return json.Marshal(p)
}

// Subjects returns the digests that a statement is about, as sha256:….
func Subjects(text []byte) (digests []string, err error) {
	var p provenance
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, fmt.Errorf("reading the provenance: %w", err)
	}
	if p.Type != statement {
		return nil, fmt.Errorf("reading the provenance: it is of type %q", p.Type)
	}
	for _, d := range p.Subject {
		if sum := d.Digest["sha256"]; sum != "" {
			digests = append(digests, "sha256:"+sum)
		}
	}
	return digests, nil
}

// A Key signs or, if it is the public half, only verifies.
type Key struct{ dsse.SignerVerifier }

// ReadKey reads a key in PEM: private or public, Ed25519, ECDSA or RSA.
func ReadKey(pem []byte) (Key, error) {
	key, err := signerverifier.LoadKey(pem)
	if err != nil {
		return Key{}, fmt.Errorf("reading the key: %w", err)
	}
	var k dsse.SignerVerifier
	switch key.KeyType {
	case signerverifier.ED25519KeyType:
		k, err = signerverifier.NewED25519SignerVerifierFromSSLibKey(key)
	case signerverifier.ECDSAKeyType:
		k, err = signerverifier.NewECDSASignerVerifierFromSSLibKey(key)
	case signerverifier.RSAKeyType:
		k, err = signerverifier.NewRSAPSSSignerVerifierFromSSLibKey(key)
	default:
		err = fmt.Errorf("it is of type %q", key.KeyType)
	}
	if err != nil {
		return Key{}, fmt.Errorf("reading the key: %w", err)
	}
	return Key{k}, nil
}

// Sign wraps a statement in an envelope with a signature (DSSE 1,
// github.com/secure-systems-lab/dsse).
func (k Key) Sign(ctx context.Context, text []byte) ([]byte, error) {
	signer, err := dsse.NewEnvelopeSigner(k.SignerVerifier)
	if err != nil {
		return nil, err
	}
	envelope, err := signer.SignPayload(ctx, StatementType, text)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return json.Marshal(envelope)
}

// ErrNotSigned is in the chain of the error for what isn't signed with a key.
var ErrNotSigned = errors.New("not signed with this key")

// Open returns the statement in an envelope, if it is signed with the key.
func (k Key) Open(ctx context.Context, text []byte) ([]byte, error) {
	var envelope dsse.Envelope
	if err := json.Unmarshal(text, &envelope); err != nil {
		return nil, fmt.Errorf("%w: it isn't an envelope: %w", ErrNotSigned, err)
	}
	verifier, err := dsse.NewEnvelopeVerifier(k.SignerVerifier)
	if err != nil {
		return nil, err
	}
	if _, err := verifier.Verify(ctx, &envelope); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSigned, err)
	}
	if envelope.PayloadType != StatementType {
		return nil, fmt.Errorf("%w: it has a %s in it", ErrNotSigned, envelope.PayloadType)
	}
	return envelope.DecodeB64Payload()
}
