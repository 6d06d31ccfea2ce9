#include "textflag.h"
#include "go_asm.h"

// Rows are 64 bytes: two YMM registers. CX counts rows.

#define AFFINE2ARGS \
	MOVQ dst+0(FP), DI; \
	MOVQ x+8(FP), SI; \
	MOVQ y+16(FP), DX; \
	MOVQ n+24(FP), CX; \
	MOVQ a+32(FP), AX; \
	MOVQ b+40(FP), BX; \
	MOVQ c+48(FP), R8; \
	VMOVUPS (AX), Y0; \
	VMOVUPS 32(AX), Y1; \
	VMOVUPS (BX), Y2; \
	VMOVUPS 32(BX), Y3; \
	VMOVUPS (R8), Y4; \
	VMOVUPS 32(R8), Y5

// Y6, Y7 = fma(x, a, fma(y, b, c))
#define AFFINE2ROW \
	VMOVUPS (DX), Y8; \
	VMOVUPS 32(DX), Y9; \
	VMOVUPS (SI), Y6; \
	VMOVUPS 32(SI), Y7; \
	VFMADD213PS Y4, Y2, Y8; \
	VFMADD213PS Y5, Y3, Y9; \
	VFMADD213PS Y8, Y0, Y6; \
	VFMADD213PS Y9, Y1, Y7

#define AFFINE2NEXT \
	VMOVUPS Y6, (DI); \
	VMOVUPS Y7, 32(DI); \
	ADDQ $64, SI; \
	ADDQ $64, DX; \
	ADDQ $64, DI; \
	DECQ CX

// One half of the lanes of all rows; at is the half's offset in a row.
#define RELUGRADHALF(at, loop) \
	MOVQ dst+0(FP), DI; \
	MOVQ grad+8(FP), BX; \
	MOVQ x+16(FP), SI; \
	MOVQ y+24(FP), DX; \
	MOVQ n+32(FP), CX; \
	VMOVUPS (ReLUGradArgs_A+at)(AX), Y0; \
	VMOVUPS (ReLUGradArgs_B+at)(AX), Y1; \
	VMOVUPS (ReLUGradArgs_C+at)(AX), Y2; \
	VMOVUPS (ReLUGradArgs_MeanX+at)(AX), Y3; \
	VMOVUPS (ReLUGradArgs_MeanY+at)(AX), Y4; \
	VMOVUPS (ReLUGradArgs_Sum+at)(AX), Y5; \
	VMOVUPS (ReLUGradArgs_DotX+at)(AX), Y6; \
	VMOVUPS (ReLUGradArgs_DotY+at)(AX), Y7; \
	VXORPS Y15, Y15, Y15; \
loop: \
	VMOVUPS at(SI), Y8; \
	VMOVUPS at(DX), Y9; \
	VMOVAPS Y2, Y10; \
	VFMADD231PS Y9, Y1, Y10; \
	VFMADD231PS Y8, Y0, Y10; \
	VCMPPS $0x0e, Y15, Y10, Y10; \
	VANDPS at(BX), Y10, Y10; \
	VSUBPS Y3, Y8, Y8; \
	VSUBPS Y4, Y9, Y9; \
	VADDPS Y10, Y5, Y5; \
	VFMADD231PS Y8, Y10, Y6; \
	VFMADD231PS Y9, Y10, Y7; \
	VMOVUPS Y10, at(DI); \
	ADDQ $64, SI; \
	ADDQ $64, DX; \
	ADDQ $64, BX; \
	ADDQ $64, DI; \
	DECQ CX; \
	JNZ loop; \
	VMOVUPS Y5, (ReLUGradArgs_Sum+at)(AX); \
	VMOVUPS Y6, (ReLUGradArgs_DotX+at)(AX); \
	VMOVUPS Y7, (ReLUGradArgs_DotY+at)(AX)

// Y0...Y3 become ((0+1)+(2+3))/2, ((0-1)+(2-3))/2, ((0+1)-(2+3))/2 and
// ((0-1)-(2-3))/2; Y15 is one half.
#define BUTTERFLY \
	VADDPS Y1, Y0, Y4; \
	VADDPS Y3, Y2, Y5; \
	VSUBPS Y1, Y0, Y6; \
	VSUBPS Y3, Y2, Y7; \
	VADDPS Y5, Y4, Y0; \
	VADDPS Y7, Y6, Y1; \
	VSUBPS Y5, Y4, Y2; \
	VSUBPS Y7, Y6, Y3; \
	VMULPS Y15, Y0, Y0; \
	VMULPS Y15, Y1, Y1; \
	VMULPS Y15, Y2, Y2; \
	VMULPS Y15, Y3, Y3

#define HAARHALF(at) \
	VMOVUPS at(SI), Y0; \
	VMOVUPS (64+at)(SI), Y1; \
	VMOVUPS at(DX), Y2; \
	VMOVUPS (64+at)(DX), Y3; \
	BUTTERFLY; \
	VMOVUPS Y0, at(R8); \
	VMOVUPS Y1, at(R9); \
	VMOVUPS Y2, at(R10); \
	VMOVUPS Y3, at(R11)

#define INVERSEHALF(at) \
	VMOVUPS at(R8), Y0; \
	VMOVUPS at(R9), Y1; \
	VMOVUPS at(R10), Y2; \
	VMOVUPS at(R11), Y3; \
	BUTTERFLY; \
	VMOVUPS Y0, at(SI); \
	VMOVUPS Y1, (64+at)(SI); \
	VMOVUPS Y2, at(DX); \
	VMOVUPS Y3, (64+at)(DX)

#define ADAMHALF(at) \
	VMOVUPS at(BX), Y7; \
	VMULPS at(SI), Y0, Y8; \
	VMULPS Y7, Y1, Y9; \
	VADDPS Y9, Y8, Y8; \
	VMOVUPS Y8, at(SI); \
	VMULPS at(DX), Y2, Y9; \
	VMULPS Y7, Y7, Y7; \
	VMULPS Y7, Y3, Y7; \
	VADDPS Y7, Y9, Y9; \
	VMOVUPS Y9, at(DX); \
	VSQRTPS Y9, Y9; \
	VDIVPS Y5, Y9, Y9; \
	VADDPS Y6, Y9, Y9; \
	VMULPS Y8, Y4, Y8; \
	VDIVPS Y9, Y8, Y8; \
	VMOVUPS at(DI), Y9; \
	VSUBPS Y8, Y9, Y9; \
	VMOVUPS Y9, at(DI)

// func moments(x *float32, n int, shift, sum, squares *Vec)
TEXT ·moments(SB), NOSPLIT, $0-40
	MOVQ x+0(FP), SI
	MOVQ n+8(FP), CX
	MOVQ shift+16(FP), AX
	MOVQ sum+24(FP), BX
	MOVQ squares+32(FP), DX
	VMOVUPS (AX), Y0
	VMOVUPS 32(AX), Y1
	VMOVUPS (BX), Y2
	VMOVUPS 32(BX), Y3
	VMOVUPS (DX), Y4
	VMOVUPS 32(DX), Y5

row:
	VMOVUPS (SI), Y6
	VMOVUPS 32(SI), Y7
	VSUBPS Y0, Y6, Y6
	VSUBPS Y1, Y7, Y7
	VADDPS Y6, Y2, Y2
	VADDPS Y7, Y3, Y3
	VFMADD231PS Y6, Y6, Y4
	VFMADD231PS Y7, Y7, Y5
	ADDQ $64, SI
	DECQ CX
	JNZ  row
	VMOVUPS Y2, (BX)
	VMOVUPS Y3, 32(BX)
	VMOVUPS Y4, (DX)
	VMOVUPS Y5, 32(DX)
	VZEROUPPER
	RET

// func affineReLU(dst, x *float32, n int, scale, shift *Vec)
TEXT ·affineReLU(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+16(FP), CX
	MOVQ scale+24(FP), AX
	MOVQ shift+32(FP), BX
	VMOVUPS (AX), Y0
	VMOVUPS 32(AX), Y1
	VMOVUPS (BX), Y2
	VMOVUPS 32(BX), Y3
	VXORPS Y8, Y8, Y8

row:
	VMOVUPS (SI), Y4
	VMOVUPS 32(SI), Y5
	VFMADD213PS Y2, Y0, Y4
	VFMADD213PS Y3, Y1, Y5
	VMAXPS Y4, Y8, Y4
	VMAXPS Y5, Y8, Y5
	VMOVUPS Y4, (DI)
	VMOVUPS Y5, 32(DI)
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ CX
	JNZ  row
	VZEROUPPER
	RET

// func affine2(dst, x, y *float32, n int, a, b, c *Vec)
TEXT ·affine2(SB), NOSPLIT, $0-56
	AFFINE2ARGS

row:
	AFFINE2ROW
	AFFINE2NEXT
	JNZ row
	VZEROUPPER
	RET

// func affine2ReLU(dst, x, y *float32, n int, a, b, c *Vec)
TEXT ·affine2ReLU(SB), NOSPLIT, $0-56
	AFFINE2ARGS
	VXORPS Y10, Y10, Y10

row:
	AFFINE2ROW
	VMAXPS Y6, Y10, Y6
	VMAXPS Y7, Y10, Y7
	AFFINE2NEXT
	JNZ row
	VZEROUPPER
	RET

// func reluGrad(dst, grad, x, y *float32, n int, p *ReLUGradArgs)
TEXT ·reluGrad(SB), NOSPLIT, $0-48
	MOVQ p+40(FP), AX
	RELUGRADHALF(0, low)
	RELUGRADHALF(32, high)
	VZEROUPPER
	RET

// func scaleGrad(dst, grad, act, x *float32, n int, scale, mean, sum, dot *Vec)
TEXT ·scaleGrad(SB), NOSPLIT, $0-72
	MOVQ dst+0(FP), DI
	MOVQ grad+8(FP), BX
	MOVQ act+16(FP), DX
	MOVQ x+24(FP), SI
	MOVQ n+32(FP), CX
	MOVQ scale+40(FP), AX
	VMOVUPS (AX), Y0
	VMOVUPS 32(AX), Y1
	MOVQ mean+48(FP), AX
	VMOVUPS (AX), Y2
	VMOVUPS 32(AX), Y3
	MOVQ sum+56(FP), R8
	VMOVUPS (R8), Y4
	VMOVUPS 32(R8), Y5
	MOVQ dot+64(FP), R9
	VMOVUPS (R9), Y6
	VMOVUPS 32(R9), Y7
	VXORPS Y15, Y15, Y15

row:
	VMULPS (BX), Y0, Y8
	VMULPS 32(BX), Y1, Y9
	VMOVUPS (DX), Y10
	VMOVUPS 32(DX), Y11
	VCMPPS $0x0e, Y15, Y10, Y10
	VCMPPS $0x0e, Y15, Y11, Y11
	VANDPS Y8, Y10, Y8
	VANDPS Y9, Y11, Y9
	VMOVUPS (SI), Y10
	VMOVUPS 32(SI), Y11
	VSUBPS Y2, Y10, Y10
	VSUBPS Y3, Y11, Y11
	VADDPS Y8, Y4, Y4
	VADDPS Y9, Y5, Y5
	VFMADD231PS Y10, Y8, Y6
	VFMADD231PS Y11, Y9, Y7
	VMOVUPS Y8, (DI)
	VMOVUPS Y9, 32(DI)
	ADDQ $64, BX
	ADDQ $64, DX
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ CX
	JNZ  row
	VMOVUPS Y4, (R8)
	VMOVUPS Y5, 32(R8)
	VMOVUPS Y6, (R9)
	VMOVUPS Y7, 32(R9)
	VZEROUPPER
	RET

DATA half<>+0(SB)/4, $0.5
GLOBL half<>(SB), RODATA|NOPTR, $4

// func haar(ll, lh, hl, hh, top, bottom *float32, n int)
TEXT ·haar(SB), NOSPLIT, $0-56
	MOVQ ll+0(FP), R8
	MOVQ lh+8(FP), R9
	MOVQ hl+16(FP), R10
	MOVQ hh+24(FP), R11
	MOVQ top+32(FP), SI
	MOVQ bottom+40(FP), DX
	MOVQ n+48(FP), CX
	VBROADCASTSS half<>(SB), Y15

row:
	HAARHALF(0)
	HAARHALF(32)
	ADDQ $64, R8
	ADDQ $64, R9
	ADDQ $64, R10
	ADDQ $64, R11
	ADDQ $128, SI
	ADDQ $128, DX
	DECQ CX
	JNZ  row
	VZEROUPPER
	RET

// func haarInverse(top, bottom, ll, lh, hl, hh *float32, n int)
TEXT ·haarInverse(SB), NOSPLIT, $0-56
	MOVQ top+0(FP), SI
	MOVQ bottom+8(FP), DX
	MOVQ ll+16(FP), R8
	MOVQ lh+24(FP), R9
	MOVQ hl+32(FP), R10
	MOVQ hh+40(FP), R11
	MOVQ n+48(FP), CX
	VBROADCASTSS half<>(SB), Y15

row:
	INVERSEHALF(0)
	INVERSEHALF(32)
	ADDQ $64, R8
	ADDQ $64, R9
	ADDQ $64, R10
	ADDQ $64, R11
	ADDQ $128, SI
	ADDQ $128, DX
	DECQ CX
	JNZ  row
	VZEROUPPER
	RET

// func adam(w, m, v, grad *float32, n int, p *AdamArgs)
TEXT ·adam(SB), NOSPLIT, $0-48
	MOVQ w+0(FP), DI
	MOVQ m+8(FP), SI
	MOVQ v+16(FP), DX
	MOVQ grad+24(FP), BX
	MOVQ n+32(FP), CX
	MOVQ p+40(FP), AX
	VBROADCASTSS AdamArgs_Beta1(AX), Y0
	VBROADCASTSS AdamArgs_OneMinusBeta1(AX), Y1
	VBROADCASTSS AdamArgs_Beta2(AX), Y2
	VBROADCASTSS AdamArgs_OneMinusBeta2(AX), Y3
	VBROADCASTSS AdamArgs_StepSize(AX), Y4
	VBROADCASTSS AdamArgs_Correction(AX), Y5
	VBROADCASTSS AdamArgs_Epsilon(AX), Y6

row:
	ADAMHALF(0)
	ADAMHALF(32)
	ADDQ $64, DI
	ADDQ $64, SI
	ADDQ $64, DX
	ADDQ $64, BX
	DECQ CX
	JNZ  row
	VZEROUPPER
	RET

// func add(dst, x *float32, n int)
TEXT ·add(SB), NOSPLIT, $0-24
	MOVQ dst+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ n+16(FP), CX

row:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VADDPS (SI), Y0, Y0
	VADDPS 32(SI), Y1, Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ $64, DI
	ADDQ $64, SI
	DECQ CX
	JNZ  row
	VZEROUPPER
	RET
