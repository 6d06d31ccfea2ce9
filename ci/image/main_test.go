package image

import (
	"os"
	"testing"

	"github.com/berthdev/berth/internal/dockertest"
)

func TestMain(m *testing.M) { os.Exit(dockertest.Main(m)) }
