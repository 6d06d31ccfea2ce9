package workflows

import _ "embed"

// RunnerHook is the script that a self-hosted runner calls before each job. It refuses
// what isn't of chosen repositories themselves, whatever a workflow says.
//
//go:embed runner-hook.sh
var RunnerHook []byte
