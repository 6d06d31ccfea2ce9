//go:build cuda && cgo && linux && amd64

package driver

/*
#include <cuda.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
)

// ErrUnavailable is in the chain of errors about a link that is missing between the program
// and a GPU.
var ErrUnavailable = errors.New("no CUDA")

// Error is what a function of the driver came back with.
type Error struct {
	Call    string
	Code    int
	Name    string // the driver's, such as CUDA_ERROR_OUT_OF_MEMORY
	Meaning string // in the driver's words; empty if it has none
}

func (e *Error) Error() string {
	if e.Meaning == "" {
		return fmt.Sprintf("%s: error %d (%s)", e.Call, e.Code, e.Name)
	}
	return fmt.Sprintf("%s: error %d (%s: %s)", e.Call, e.Code, e.Name, e.Meaning)
}

// failed is the error of a call, with what the driver says about its code, or nil.
func failed(call string, err error) error {
	if err == nil {
		return nil
	}
	// The type of gorgonia.org/cu's codes has no name outside of it.
	code := reflect.ValueOf(err)
	if code.Kind() != reflect.Int {
		return fmt.Errorf("%s: %w", call, err)
	}
	e := &Error{Call: call, Code: int(code.Int()), Name: err.Error()}
	var name, meaning *C.char
	if C.cuGetErrorName(C.CUresult(e.Code), &name) == C.CUDA_SUCCESS && name != nil {
		e.Name = C.GoString(name)
	}
	if C.cuGetErrorString(C.CUresult(e.Code), &meaning) == C.CUDA_SUCCESS && meaning != nil {
		e.Meaning = C.GoString(meaning)
	}
	return e
}

// result is the error of a call that this package makes itself.
func result(r C.CUresult) error {
	if r == C.CUDA_SUCCESS {
		return nil
	}
	return code(r)
}

// code is an error code, as those of gorgonia.org/cu are.
type code int

func (c code) Error() string { return fmt.Sprintf("code %d", int(c)) }
