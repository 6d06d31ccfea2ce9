package commands

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/magefile/mage/mg"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/magefiles/targets"
)

func TestWorkflows(t *testing.T) {
	yes, hook := true, filepath.Join(t.TempDir(), "hook.sh")
	in(t, ci.Project{}, map[string]string{"go.mod": "module x\n"})
	_, err := printed(t, func() error { return targets.Workflows(t.Context(), &yes, nil) })
	assert.Equal(t, ci.ExitPinsDiffer, mg.ExitStatus(err))
	assert.ErrorContains(t, err, "Type\n\t"+os.Args[0]+" workflows")
	assert.NoDirExists(t, ".github")

	_, err = printed(t, func() error { return targets.Workflows(t.Context(), &yes, &hook) })
	assert.Equal(t, ci.ExitUsage, mg.ExitStatus(err))
	out, err := printed(t, func() error { return targets.Workflows(t.Context(), nil, &hook) })
	require.NoError(t, err)
	assert.Empty(t, out)
	assert.FileExists(t, hook)
	assert.NoDirExists(t, ".github")

	out, err = printed(t, func() error { return targets.Workflows(t.Context(), nil, nil) })
	require.NoError(t, err)
	assert.Regexp(t, `^created /.*/\.github/workflows/berth-gpu\.yml\ncreated /.*/\.github/workflows/berth\.yml\n$`, out)
	_, err = printed(t, func() error { return targets.Workflows(t.Context(), &yes, nil) })
	require.NoError(t, err)
}
