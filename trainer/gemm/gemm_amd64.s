#include "textflag.h"
#include "go_asm.h"

// The arguments of the Outer kernels, below.
#define OUTERARGS \
	MOVQ dw+0(FP), DI; \
	MOVQ src+8(FP), AX; \
	MOVQ grad+16(FP), BX; \
	MOVQ off+24(FP), SI; \
	MOVQ rows+32(FP), CX

// The Mul kernels keep one tile of the output in registers over all input
// planes and taps:
//
//	R15 args        AX  input plane       SI  list of input rows, current tap
//	R14 planes left DX  taps left         BX  weights
//	DI  output row, or end of columns     CX  column * 4, from -columns*4 to 0
//
// The row registers point behind the columns of the tap's input rows, so that
// CX both indexes and counts. Columns come in fours.

// ---- AVX2: Y0, Y1 weights of one column, Y2 an input value, Y4... sums.

#define ZERO256(lo, hi) \
	VXORPS lo, lo, lo; \
	VXORPS hi, hi, hi

#define LOAD256(lo, hi) \
	VMOVUPS (DI), lo; \
	VMOVUPS 32(DI), hi; \
	ADDQ DX, DI

#define STORE256(lo, hi) \
	VMOVUPS lo, (DI); \
	VMOVUPS hi, 32(DI); \
	ADDQ DX, DI

#define ROW(at, reg) \
	MOVLQSX at(SI), reg; \
	ADDQ DI, reg

#define WEIGHTS256(at) \
	VMOVUPS (at*64)(BX), Y0; \
	VMOVUPS (at*64+32)(BX), Y1

#define FMA256(at, reg, lo, hi) \
	VBROADCASTSS (at*4)(reg)(CX*1), Y2; \
	VFMADD231PS Y0, Y2, lo; \
	VFMADD231PS Y1, Y2, hi

// Common head and tail of the loops over planes, taps and columns.
#define PLANES \
	MOVQ mulArgs_src(R15), AX; \
	MOVQ mulArgs_w(R15), BX; \
	MOVQ mulArgs_planes(R15), R14

#define TAPS \
	MOVQ mulArgs_off(R15), SI; \
	MOVQ mulArgs_taps(R15), DX

#define COLUMNS \
	MOVQ mulArgs_columns(R15), CX; \
	LEAQ (AX)(CX*1), DI

#define NEXTTAP \
	ADDQ mulArgs_wSkip(R15), BX; \
	ADDQ mulArgs_offTap(R15), SI; \
	DECQ DX

#define NEXTPLANE \
	ADDQ mulArgs_srcPlane(R15), AX; \
	DECQ R14

#define OUTPUT \
	MOVQ mulArgs_dst(R15), DI; \
	MOVQ mulArgs_dstRow(R15), DX

// After OUTPUT and the stores DI is the next tile's first row.
#define NEXTTILE(rows) \
	MOVQ DI, mulArgs_dst(R15); \
	ADDQ $(rows*4), mulArgs_off(R15); \
	DECQ mulArgs_tiles(R15)

#define COLUMN6(at) \
	WEIGHTS256(at); \
	FMA256(at, R8, Y4, Y5); \
	FMA256(at, R9, Y6, Y7); \
	FMA256(at, R10, Y8, Y9); \
	FMA256(at, R11, Y10, Y11); \
	FMA256(at, R12, Y12, Y13); \
	FMA256(at, R13, Y14, Y15)

// func mul256x6(args *mulArgs)
TEXT ·mul256x6(SB), NOSPLIT, $0-8
	MOVQ args+0(FP), R15

tile:
	CMPQ mulArgs_add(R15), $0
	JNE  add
	ZERO256(Y4, Y5)
	ZERO256(Y6, Y7)
	ZERO256(Y8, Y9)
	ZERO256(Y10, Y11)
	ZERO256(Y12, Y13)
	ZERO256(Y14, Y15)
	JMP  planes

add:
	OUTPUT
	LOAD256(Y4, Y5)
	LOAD256(Y6, Y7)
	LOAD256(Y8, Y9)
	LOAD256(Y10, Y11)
	LOAD256(Y12, Y13)
	LOAD256(Y14, Y15)

planes:
	PLANES

plane:
	TAPS

tap:
	COLUMNS
	ROW(0, R8)
	ROW(4, R9)
	ROW(8, R10)
	ROW(12, R11)
	ROW(16, R12)
	ROW(20, R13)
	NEGQ CX

column:
	COLUMN6(0)
	COLUMN6(1)
	COLUMN6(2)
	COLUMN6(3)
	ADDQ $256, BX
	ADDQ $16, CX
	JNZ  column
	NEXTTAP
	JNZ  tap
	NEXTPLANE
	JNZ  plane
	OUTPUT
	STORE256(Y4, Y5)
	STORE256(Y6, Y7)
	STORE256(Y8, Y9)
	STORE256(Y10, Y11)
	STORE256(Y12, Y13)
	STORE256(Y14, Y15)
	NEXTTILE(6)
	JNZ  tile
	VZEROUPPER
	RET

#define COLUMN4(at) \
	WEIGHTS256(at); \
	FMA256(at, R8, Y4, Y5); \
	FMA256(at, R9, Y6, Y7); \
	FMA256(at, R10, Y8, Y9); \
	FMA256(at, R11, Y10, Y11)

// func mul256x4(args *mulArgs)
TEXT ·mul256x4(SB), NOSPLIT, $0-8
	MOVQ args+0(FP), R15

tile:
	CMPQ mulArgs_add(R15), $0
	JNE  add
	ZERO256(Y4, Y5)
	ZERO256(Y6, Y7)
	ZERO256(Y8, Y9)
	ZERO256(Y10, Y11)
	JMP  planes

add:
	OUTPUT
	LOAD256(Y4, Y5)
	LOAD256(Y6, Y7)
	LOAD256(Y8, Y9)
	LOAD256(Y10, Y11)

planes:
	PLANES

plane:
	TAPS

tap:
	COLUMNS
	ROW(0, R8)
	ROW(4, R9)
	ROW(8, R10)
	ROW(12, R11)
	NEGQ CX

column:
	COLUMN4(0)
	COLUMN4(1)
	COLUMN4(2)
	COLUMN4(3)
	ADDQ $256, BX
	ADDQ $16, CX
	JNZ  column
	NEXTTAP
	JNZ  tap
	NEXTPLANE
	JNZ  plane
	OUTPUT
	STORE256(Y4, Y5)
	STORE256(Y6, Y7)
	STORE256(Y8, Y9)
	STORE256(Y10, Y11)
	NEXTTILE(4)
	JNZ  tile
	VZEROUPPER
	RET

#define COLUMN1(at) \
	WEIGHTS256(at); \
	FMA256(at, R8, Y4, Y5)

// func mul256x1(args *mulArgs)
TEXT ·mul256x1(SB), NOSPLIT, $0-8
	MOVQ args+0(FP), R15

tile:
	CMPQ mulArgs_add(R15), $0
	JNE  add
	ZERO256(Y4, Y5)
	JMP  planes

add:
	OUTPUT
	LOAD256(Y4, Y5)

planes:
	PLANES

plane:
	TAPS

tap:
	COLUMNS
	ROW(0, R8)
	NEGQ CX

column:
	COLUMN1(0)
	COLUMN1(1)
	COLUMN1(2)
	COLUMN1(3)
	ADDQ $256, BX
	ADDQ $16, CX
	JNZ  column
	NEXTTAP
	JNZ  tap
	NEXTPLANE
	JNZ  plane
	OUTPUT
	STORE256(Y4, Y5)
	NEXTTILE(1)
	JNZ  tile
	VZEROUPPER
	RET

// ---- AVX-512: Z0, Z1 weights of one column, Z2 an input value, Z16... sums.

#define ROWS8 \
	ROW(0, R8); \
	ROW(4, R9); \
	ROW(8, R10); \
	ROW(12, R11); \
	ROW(16, R12); \
	ROW(20, R13); \
	ROW(24, BP); \
	MOVLQSX 28(SI), R14; \
	ADDQ R14, DI

#define ZERO512(z) VPXORD z, z, z

#define LOAD512(z) \
	VMOVUPS (DI), z; \
	ADDQ DX, DI

#define STORE512(z) \
	VMOVUPS z, (DI); \
	ADDQ DX, DI

#define FMA512(at, reg, lo, hi) \
	VBROADCASTSS (at*4)(reg)(CX*1), Z2; \
	VFMADD231PS Z0, Z2, lo; \
	VFMADD231PS Z1, Z2, hi

#define COLUMN8X2(at) \
	VMOVUPS (at*64)(BX), Z0; \
	VMOVUPS (at*64)(BX)(R14*1), Z1; \
	FMA512(at, R8, Z16, Z24); \
	FMA512(at, R9, Z17, Z25); \
	FMA512(at, R10, Z18, Z26); \
	FMA512(at, R11, Z19, Z27); \
	FMA512(at, R12, Z20, Z28); \
	FMA512(at, R13, Z21, Z29); \
	FMA512(at, BP, Z22, Z30); \
	FMA512(at, DI, Z23, Z31)

// These two need a register more: the planes left are on the stack, R14 is
// the distance to the second plane's weights, BP and DI are input rows.

// func mul512x8x2(args *mulArgs)
TEXT ·mul512x8x2(SB), NOSPLIT, $8-8
	MOVQ args+0(FP), R15

tile:
	CMPQ mulArgs_add(R15), $0
	JNE  add
	ZERO512(Z16)
	ZERO512(Z17)
	ZERO512(Z18)
	ZERO512(Z19)
	ZERO512(Z20)
	ZERO512(Z21)
	ZERO512(Z22)
	ZERO512(Z23)
	ZERO512(Z24)
	ZERO512(Z25)
	ZERO512(Z26)
	ZERO512(Z27)
	ZERO512(Z28)
	ZERO512(Z29)
	ZERO512(Z30)
	ZERO512(Z31)
	JMP  planes

add:
	OUTPUT
	LOAD512(Z16)
	LOAD512(Z17)
	LOAD512(Z18)
	LOAD512(Z19)
	LOAD512(Z20)
	LOAD512(Z21)
	LOAD512(Z22)
	LOAD512(Z23)
	MOVQ mulArgs_dst(R15), DI
	ADDQ mulArgs_dstPlane(R15), DI
	LOAD512(Z24)
	LOAD512(Z25)
	LOAD512(Z26)
	LOAD512(Z27)
	LOAD512(Z28)
	LOAD512(Z29)
	LOAD512(Z30)
	LOAD512(Z31)

planes:
	PLANES
	MOVQ R14, left-8(SP)

plane:
	TAPS

tap:
	COLUMNS
	ROWS8
	MOVQ mulArgs_wPlane(R15), R14
	NEGQ CX

column:
	COLUMN8X2(0)
	COLUMN8X2(1)
	COLUMN8X2(2)
	COLUMN8X2(3)
	ADDQ $256, BX
	ADDQ $16, CX
	JNZ  column
	NEXTTAP
	JNZ  tap
	ADDQ mulArgs_srcPlane(R15), AX
	DECQ left-8(SP)
	JNZ  plane
	OUTPUT
	ADDQ mulArgs_dstPlane(R15), DI
	STORE512(Z24)
	STORE512(Z25)
	STORE512(Z26)
	STORE512(Z27)
	STORE512(Z28)
	STORE512(Z29)
	STORE512(Z30)
	STORE512(Z31)
	MOVQ mulArgs_dst(R15), DI
	STORE512(Z16)
	STORE512(Z17)
	STORE512(Z18)
	STORE512(Z19)
	STORE512(Z20)
	STORE512(Z21)
	STORE512(Z22)
	STORE512(Z23)
	NEXTTILE(8)
	JNZ  tile
	VZEROUPPER
	RET

#define COLUMN8(at) \
	VMOVUPS (at*64)(BX), Z0; \
	VFMADD231PS.BCST (at*4)(R8)(CX*1), Z0, Z16; \
	VFMADD231PS.BCST (at*4)(R9)(CX*1), Z0, Z17; \
	VFMADD231PS.BCST (at*4)(R10)(CX*1), Z0, Z18; \
	VFMADD231PS.BCST (at*4)(R11)(CX*1), Z0, Z19; \
	VFMADD231PS.BCST (at*4)(R12)(CX*1), Z0, Z20; \
	VFMADD231PS.BCST (at*4)(R13)(CX*1), Z0, Z21; \
	VFMADD231PS.BCST (at*4)(BP)(CX*1), Z0, Z22; \
	VFMADD231PS.BCST (at*4)(DI)(CX*1), Z0, Z23

// func mul512x8(args *mulArgs)
TEXT ·mul512x8(SB), NOSPLIT, $8-8
	MOVQ args+0(FP), R15

tile:
	CMPQ mulArgs_add(R15), $0
	JNE  add
	ZERO512(Z16)
	ZERO512(Z17)
	ZERO512(Z18)
	ZERO512(Z19)
	ZERO512(Z20)
	ZERO512(Z21)
	ZERO512(Z22)
	ZERO512(Z23)
	JMP  planes

add:
	OUTPUT
	LOAD512(Z16)
	LOAD512(Z17)
	LOAD512(Z18)
	LOAD512(Z19)
	LOAD512(Z20)
	LOAD512(Z21)
	LOAD512(Z22)
	LOAD512(Z23)

planes:
	PLANES
	MOVQ R14, left-8(SP)

plane:
	TAPS

tap:
	COLUMNS
	ROWS8
	NEGQ CX

column:
	COLUMN8(0)
	COLUMN8(1)
	COLUMN8(2)
	COLUMN8(3)
	ADDQ $256, BX
	ADDQ $16, CX
	JNZ  column
	NEXTTAP
	JNZ  tap
	ADDQ mulArgs_srcPlane(R15), AX
	DECQ left-8(SP)
	JNZ  plane
	OUTPUT
	STORE512(Z16)
	STORE512(Z17)
	STORE512(Z18)
	STORE512(Z19)
	STORE512(Z20)
	STORE512(Z21)
	STORE512(Z22)
	STORE512(Z23)
	NEXTTILE(8)
	JNZ  tile
	VZEROUPPER
	RET

// ---- Outer: the tile of dw stays in registers over all rows.
//
//	DI dw    AX src    SI list of input rows    BX grad    CX rows left

#define OUTERROW \
	MOVLQSX (SI), R8; \
	ADDQ $4, SI

#define DW256(op, at, lo, hi) \
	op (at*64)(DI), lo; \
	op (at*64+32)(DI), hi

#define OUTER256(at, lo, hi) \
	VBROADCASTSS (at*4)(AX)(R8*1), Y2; \
	VFMADD231PS Y0, Y2, lo; \
	VFMADD231PS Y1, Y2, hi

#define SAVE256(at, lo, hi) \
	VMOVUPS lo, (at*64)(DI); \
	VMOVUPS hi, (at*64+32)(DI)

// func outer256x6(dw, src, grad unsafe.Pointer, off *int32, rows int)
TEXT ·outer256x6(SB), NOSPLIT, $0-40
	OUTERARGS
	DW256(VMOVUPS, 0, Y4, Y5)
	DW256(VMOVUPS, 1, Y6, Y7)
	DW256(VMOVUPS, 2, Y8, Y9)
	DW256(VMOVUPS, 3, Y10, Y11)
	DW256(VMOVUPS, 4, Y12, Y13)
	DW256(VMOVUPS, 5, Y14, Y15)

row:
	OUTERROW
	WEIGHTS256(0)
	ADDQ $64, BX
	OUTER256(0, Y4, Y5)
	OUTER256(1, Y6, Y7)
	OUTER256(2, Y8, Y9)
	OUTER256(3, Y10, Y11)
	OUTER256(4, Y12, Y13)
	OUTER256(5, Y14, Y15)
	DECQ CX
	JNZ  row
	SAVE256(0, Y4, Y5)
	SAVE256(1, Y6, Y7)
	SAVE256(2, Y8, Y9)
	SAVE256(3, Y10, Y11)
	SAVE256(4, Y12, Y13)
	SAVE256(5, Y14, Y15)
	VZEROUPPER
	RET

// func outer256x4(dw, src, grad unsafe.Pointer, off *int32, rows int)
TEXT ·outer256x4(SB), NOSPLIT, $0-40
	OUTERARGS
	DW256(VMOVUPS, 0, Y4, Y5)
	DW256(VMOVUPS, 1, Y6, Y7)
	DW256(VMOVUPS, 2, Y8, Y9)
	DW256(VMOVUPS, 3, Y10, Y11)

row:
	OUTERROW
	WEIGHTS256(0)
	ADDQ $64, BX
	OUTER256(0, Y4, Y5)
	OUTER256(1, Y6, Y7)
	OUTER256(2, Y8, Y9)
	OUTER256(3, Y10, Y11)
	DECQ CX
	JNZ  row
	SAVE256(0, Y4, Y5)
	SAVE256(1, Y6, Y7)
	SAVE256(2, Y8, Y9)
	SAVE256(3, Y10, Y11)
	VZEROUPPER
	RET

#define OUTER512(at, z) VFMADD231PS.BCST (at*4)(AX)(R8*1), Z0, z

#define EACH16(op) \
	op(0, Z16); \
	op(1, Z17); \
	op(2, Z18); \
	op(3, Z19); \
	op(4, Z20); \
	op(5, Z21); \
	op(6, Z22); \
	op(7, Z23); \
	op(8, Z24); \
	op(9, Z25); \
	op(10, Z26); \
	op(11, Z27); \
	op(12, Z28); \
	op(13, Z29); \
	op(14, Z30); \
	op(15, Z31)

#define DW512(at, z) VMOVUPS (at*64)(DI), z
#define SAVE512(at, z) VMOVUPS z, (at*64)(DI)

// func outer512x16(dw, src, grad unsafe.Pointer, off *int32, rows int)
TEXT ·outer512x16(SB), NOSPLIT, $0-40
	OUTERARGS
	EACH16(DW512)

row:
	OUTERROW
	VMOVUPS (BX), Z0
	ADDQ $64, BX
	EACH16(OUTER512)
	DECQ CX
	JNZ  row
	EACH16(SAVE512)
	VZEROUPPER
	RET
