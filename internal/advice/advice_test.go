package advice

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestText(t *testing.T) {
	pin := With(fmt.Errorf("no lock: %w", fs.ErrNotExist), "Type\n\t%s pin", Berth)
	assert.Equal(t, "no lock: file does not exist", pin.Error(), "advice is no part of what is wrong")
	assert.ErrorIs(t, pin, fs.ErrNotExist)
	assert.Equal(t, "no lock: file does not exist. Type\n\t./berth pin", Text(pin, "./berth"))
	assert.Equal(t, "building: no lock: file does not exist. Type\n\tgo tool mage pin", Text(fmt.Errorf("building: %w", pin), "go tool mage"))
	assert.Equal(t, "no lock: file does not exist\nno lock: file does not exist.\nType\n\tx pin", Text(errors.Join(pin, pin), "x"),
		"it says a thing once")
	two := With(With(errors.New("full"), "Free some space."), "Name another folder.")
	assert.Equal(t, "full. Name another folder. Free some space.", Text(two, ""))
	assert.Equal(t, "plain", Text(errors.New("plain"), ""))
	assert.NoError(t, With(nil, "none"))
}
