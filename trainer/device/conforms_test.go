package device_test

import (
	"testing"

	"github.com/berthdev/berth/trainer/device/devicetest"
)

func TestCPUConforms(t *testing.T) {
	devicetest.Run(t, devicetest.Subject{Open: devicetest.CPU, Scale: 9, Many: 300})
}
