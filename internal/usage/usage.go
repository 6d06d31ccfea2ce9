// Package usage marks the errors that are about what a person typed, so that
// every room's become the same exit code.
package usage

import "errors"

// Err is in the chain of errors about what a person typed.
var Err = errors.New("usage")
