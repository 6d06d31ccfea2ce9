package main

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/internal/testenv"
)

// TestCompletion types, in bash, what README.md says about completion, and then Tab.
func TestCompletion(t *testing.T) {
	if runtime.GOOS != "linux" {
		testenv.Skip(t, testenv.Linux, "bash is of another age here")
	}
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(readme), "```bash\nmage() {")
	require.True(t, found)
	lines, _, _ := strings.Cut("mage() {"+after, "```")
	for typed, want := range map[string]string{"engine:st": "engine:start engine:status engine:stop", "doc": "doctor", "nonsense": ""} {
		out, err := exec.Command("bash", "-c", lines+`COMP_WORDS=(mage "$0") COMP_CWORD=1; _mage; echo "${COMPREPLY[*]}"`, typed).CombinedOutput()
		require.NoError(t, err)
		assert.Equal(t, want, strings.TrimSpace(string(out)), typed)
	}
}
