package commands

import (
	"os"
	"testing"

	"github.com/creack/pty"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/berthdev/berth/ci"
	"github.com/berthdev/berth/magefiles/targets"
)

// TestDoctorFitsItsPage: colours and the width are for terminals that have them.
func TestDoctorFitsItsPage(t *testing.T) {
	before := os.Stdout
	t.Cleanup(func() { os.Stdout = before })
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")

	file, err := os.Create(t.TempDir() + "/out")
	require.NoError(t, err)
	defer file.Close()
	os.Stdout = file
	assert.False(t, doctorPage().Colour, "no terminal")
	assert.Equal(t, widest, doctorPage().Width)

	terminal, out, err := pty.Open()
	require.NoError(t, err)
	defer terminal.Close()
	defer out.Close()
	os.Stdout = out
	for columns, want := range map[uint16]int{20: 60, 80: 80, 200: widest} {
		require.NoError(t, pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: columns}))
		assert.Equal(t, want, doctorPage().Width)
	}
	assert.True(t, doctorPage().Colour)
	t.Setenv("NO_COLOR", "1")
	assert.False(t, doctorPage().Colour)
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	assert.False(t, doctorPage().Colour)
}

// TestDoctorExplainsARow needs neither a project nor Docker.
func TestDoctorExplainsARow(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
	out, err := printed(t, func() error { return Of(ci.Project{}).Doctor(t.Context(), targets.DoctorFlags{Row: "gpus-vanish"}) })
	require.NoError(t, err)
	assert.Contains(t, out, "gpus-vanish (warning): containers lose their GPUs")
	assert.Contains(t, out, "daemon-reload")
	_, err = printed(t, func() error { return Of(ci.Project{}).Doctor(t.Context(), targets.DoctorFlags{Row: "nonsense"}) })
	assert.ErrorContains(t, err, `there is no row "nonsense"`)
}
