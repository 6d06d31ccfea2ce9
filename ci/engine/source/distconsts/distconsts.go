// Package distconsts replaces a module of the engine's that no proxy serves:
// the paths and names that its image is laid out by. The image that Berth
// assembles puts its files where these constants say.
package distconsts

// The engine's state, socket and programs inside its container.
const (
	EngineContainerName              = "dagger-engine.dev"
	DefaultEngineSockAddr            = "unix:///run/dagger/engine.sock"
	EngineDefaultStateDir            = "/var/lib/dagger"
	EngineContainerBuiltinContentDir = "/usr/local/share/dagger/content"
	EngineCustomCACertsDir           = "/usr/local/share/ca-certificates"
	RuncPath                         = "/usr/local/bin/runc"
	DaggerInitPath                   = "/usr/local/bin/dagger-init"
)

// Dagger modules, interactive terminals and annotations of images use these.
// Berth uses none of the three.
const (
	GoSDKManifestDigestEnvName         = "DAGGER_GO_SDK_MANIFEST_DIGEST"
	PythonSDKManifestDigestEnvName     = "DAGGER_PYTHON_SDK_MANIFEST_DIGEST"
	TypescriptSDKManifestDigestEnvName = "DAGGER_TYPESCRIPT_SDK_MANIFEST_DIGEST"
	AlpineImage                        = "alpine"
	OCIVersionAnnotation               = "org.opencontainers.image.version"
)
