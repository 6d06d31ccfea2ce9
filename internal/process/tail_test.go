package process

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTailKeepsTheLastLines(t *testing.T) {
	var shown []string
	log := &Tail{Show: func(line string) { shown = append(shown, line) }}
	fmt.Fprint(log, "\x1b[92mgreen\x1b[0m\nhalf")
	assert.Equal(t, "green\nhalf", log.String())
	fmt.Fprint(log, " a line\r\n\n")
	assert.Equal(t, []string{"green", "half a line"}, shown)
	fmt.Fprint(log, "several\nat once\nand ")
	fmt.Fprint(log, "more\n")
	assert.Equal(t, []string{"several", "at once", "and more"}, shown[2:])
	for i := range 2 * maxLines {
		fmt.Fprintf(log, "%d\n", i)
	}
	lines := strings.Split(log.String(), "\n")
	assert.Len(t, lines, maxLines)
	assert.Equal(t, fmt.Sprint(2*maxLines-1), lines[maxLines-1])
}
