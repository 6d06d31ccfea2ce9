//go:build cuda && cgo && linux && amd64

/* The functions of the driver, as jumps; see shim.c. */

#define SYMBOL(name) .globl name; .type name, @function; name: endbr64; jmp *shim_##name(%rip)

	.text
#include "abi/symbols.h"

	.section .note.GNU-stack, "", @progbits
