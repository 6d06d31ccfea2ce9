package doctor

import (
	"fmt"
	"strings"

	"github.com/berthdev/berth/internal/trouble"
)

// mirrors is whether packages can be fetched.
func mirrors(h Host) Finding { return anyAnswers(h.Mirrors, trouble.MirrorsSilent) }

// modules is whether Go modules can be.
func modules(h Host) Finding {
	if h.Go.Path == "" {
		return Finding{}
	}
	return anyAnswers(h.Modules, trouble.ModulesSilent)
}

// anyAnswers is fine if one server of several answered.
func anyAnswers(servers []Server, row *trouble.Row) Finding {
	var answered, silent []string
	for _, s := range servers {
		if s.Err == "" {
			answered = append(answered, s.URL)
		} else {
			silent = append(silent, fmt.Sprintf("%s: %s", s.URL, s.Err))
		}
	}
	switch {
	case answered != nil:
		return fine(strings.Join(answered, ", "))
	case silent != nil:
		return found(row, strings.Join(silent, "; "))
	}
	return Finding{}
}
