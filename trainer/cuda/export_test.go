package cuda

// NewInterpreter is a device that runs the PTX that ships.
var NewInterpreter = newInterpreter

// Whole is for tests of whole steps.
var Whole = whole
