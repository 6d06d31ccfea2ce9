package gemm

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// Kernels lists the kernels that this processor can run, best first.
func Kernels() []string {
	var k []string
	if avx2 := cpu.X86.HasAVX2 && cpu.X86.HasFMA; avx2 {
		if cpu.X86.HasAVX512F {
			k = append(k, AVX512)
		}
		k = append(k, AVX2)
	}
	return append(k, Go)
}

// The Mul kernels compute args.tiles tiles of the rows and planes in their
// names, one below the other, and move args.dst and args.off past them.

//go:noescape
func mul512x8x2(args *mulArgs)

//go:noescape
func mul512x8(args *mulArgs)

//go:noescape
func mul256x6(args *mulArgs)

//go:noescape
func mul256x4(args *mulArgs)

//go:noescape
func mul256x1(args *mulArgs)

// The Outer kernels add to as many rows of dw as their names say, from rows
// rows of src and grad.

//go:noescape
func outer512x16(dw, src, grad unsafe.Pointer, off *int32, rows int)

//go:noescape
func outer256x6(dw, src, grad unsafe.Pointer, off *int32, rows int)

//go:noescape
func outer256x4(dw, src, grad unsafe.Pointer, off *int32, rows int)

// mulRows computes n rows of one or two output planes.
func mulRows(a *mulArgs, n, planes int) {
	switch kernel {
	case AVX512:
		mulRows512(a, n, planes)
	case AVX2:
		mulRows256(a, n)
	default:
		mulRowsGo(a, n)
	}
}

func mulRows512(a *mulArgs, n, planes int) {
	a.tiles = uintptr(n / 8)
	if a.tiles > 0 {
		if planes == 2 {
			mul512x8x2(a)
		} else {
			mul512x8(a)
		}
	}
	if n%8 == 0 {
		return
	}
	rest := *a
	mulRows256(&rest, n%8)
	if planes == 2 {
		rest = *a
		rest.dst = unsafe.Add(a.dst, a.dstPlane)
		rest.w = unsafe.Add(a.w, a.wPlane)
		mulRows256(&rest, n%8)
	}
}

// mulRows256 covers n rows by tiles of six, then of four, then of one: an
// even number of at least four needs none of one.
func mulRows256(a *mulArgs, n int) {
	six := n / 6
	if n%6 == 2 && six > 0 {
		six--
	}
	n -= six * 6
	if a.tiles = uintptr(six); six > 0 {
		mul256x6(a)
	}
	if a.tiles = uintptr(n / 4); n >= 4 {
		mul256x4(a)
	}
	if a.tiles = uintptr(n % 4); n%4 > 0 {
		mul256x1(a)
	}
}

// outerTile adds n rows to the tile of one tap.
func outerTile(dw, src, grad []float32, off []int32, columns, n int) {
	if kernel == Go {
		outerTileGo(dw, src, grad, off, columns, n)
		return
	}
	d, s, g := unsafe.Pointer(&dw[0]), unsafe.Pointer(&src[0]), unsafe.Pointer(&grad[0])
	if kernel == AVX512 {
		outer512x16(d, s, g, &off[0], n)
		return
	}
	k := 0
	for ; columns-k == 6 || columns-k >= 10; k += 6 {
		outer256x6(unsafe.Add(d, k*Lanes*4), unsafe.Add(s, k*4), g, &off[0], n)
	}
	for ; k < columns; k += 4 {
		outer256x4(unsafe.Add(d, k*Lanes*4), unsafe.Add(s, k*4), g, &off[0], n)
	}
}
