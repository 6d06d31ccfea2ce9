package ptx

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// entry is a file with one kernel, k, that has two pointers and a number as
// parameters, loaded into %rd0, %rd1 and %r0, and the thread's number in %r1.
func entry(body string) string {
	return `
.version 7.8
.target sm_80
.address_size 64
.visible .entry k(.param .u64 k_param_0, .param .u64 k_param_1, .param .u32 k_param_2)
{
	.reg .pred %p<8>;
	.reg .b16 %rs<8>;
	.reg .b32 %r<32>;
	.reg .f32 %f<32>;
	.reg .b64 %rd<16>;
	.reg .f64 %fd<8>;
	.shared .align 16 .b8 buffer[512];
	.local .align 8 .b8 own[16];
	ld.param.u64 %rd0, [k_param_0];
	ld.param.u64 %rd1, [k_param_1];
	ld.param.u32 %r0, [k_param_2];
	mov.u32 %r1, %tid.x;
	mul.wide.u32 %rd2, %r1, 4;
	add.s64 %rd3, %rd0, %rd2;
	add.s64 %rd4, %rd1, %rd2;
` + body + "\n\tret;\n}\n"
}

// words runs k on words, one for each thread, and returns those that it makes: in and
// out are at %rd3 and %rd4.
func words(t *testing.T, body string, in []uint32, number uint32) []uint32 {
	t.Helper()
	out, err := try(t, body, in, Dim{}, Dim{X: len(in)}, number)
	require.NoError(t, err)
	return out
}

func try(t *testing.T, body string, in []uint32, grid, block Dim, number uint32) ([]uint32, error) {
	t.Helper()
	m, err := Parse(entry(body))
	require.NoError(t, err)
	mem := NewMemory()
	var b []byte
	for _, v := range in {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	from, to := mem.Bytes("in", b), mem.Alloc("out", len(b))
	if err := m.Launch(mem, "k", grid, block, from, to, number); err != nil {
		return nil, err
	}
	b, err = mem.All(to)
	if err != nil {
		return nil, err
	}
	out := make([]uint32, len(in))
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return out, nil
}

func count(n int) []uint32 {
	v := make([]uint32, n)
	for i := range v {
		v[i] = uint32(i)
	}
	return v
}

// each is a word for each thread.
func each(n int, f func(i int) uint32) []uint32 {
	v := make([]uint32, n)
	for i := range v {
		v[i] = f(i)
	}
	return v
}

func TestThreadsBlocksAndParameters(t *testing.T) {
	m, err := Parse(entry(`
	mov.u32 %r2, %tid.y;
	mov.u32 %r3, %tid.z;
	mov.u32 %r4, %ntid.x;
	mov.u32 %r5, %ntid.y;
	mad.lo.s32 %r6, %r3, %r5, %r2;
	mad.lo.s32 %r6, %r6, %r4, %r1;
	mov.u32 %r7, %ctaid.x;
	mov.u32 %r8, %nctaid.x;
	mov.u32 %r9, %ctaid.y;
	mad.lo.s32 %r7, %r9, %r8, %r7;
	mov.u32 %r10, %ntid.z;
	mul.lo.s32 %r10, %r10, %r5;
	mul.lo.s32 %r10, %r10, %r4;
	mad.lo.s32 %r11, %r7, %r10, %r6;
	mul.wide.u32 %rd5, %r11, 4;
	add.s64 %rd5, %rd1, %rd5;
	add.s32 %r12, %r11, %r0;
	st.global.u32 [%rd5], %r12;`))
	require.NoError(t, err)
	assert.Equal(t, []string{"k"}, m.Kernels())
	mem := NewMemory()
	out := mem.Alloc("out", 4*6*60)
	require.NoError(t, m.Launch(mem, "k", Dim{X: 2, Y: 3}, Dim{X: 5, Y: 4, Z: 3}, out, out, uint32(7)))
	b, err := mem.All(out)
	require.NoError(t, err)
	for i := range 360 {
		require.EqualValues(t, i+7, binary.LittleEndian.Uint32(b[4*i:]))
	}
	for _, args := range [][]any{{out, out}, {out, out, float32(1)}, {out, out, uint64(1)}, {out, out, 1}, {out, out, uint32(1), uint32(1)}} {
		assert.Error(t, m.Launch(mem, "k", Dim{}, Dim{}, args...), "%v", args)
	}
	assert.ErrorContains(t, m.Launch(mem, "k", Dim{}, Dim{X: 1025}, out, out, uint32(7)), "1025 threads")
	assert.ErrorContains(t, m.Launch(mem, "q", Dim{}, Dim{}), `no kernel "q"`)
}

// TestBranches has threads that go different ways, and loop differently often.
func TestBranches(t *testing.T) {
	collatz := `
	ld.global.u32 %r2, [%rd3];
	mov.b32 %r3, 0;
$loop:
	setp.eq.s32 %p1, %r2, 1;
	@%p1 bra $done;
	add.s32 %r3, %r3, 1;
	and.b32 %r4, %r2, 1;
	setp.eq.s32 %p2, %r4, 1;
	@!%p2 bra $even;
	mad.lo.s32 %r2, %r2, 3, 1;
	bra.uni $loop;
$even:
	shr.u32 %r2, %r2, 1;
	bra.uni $loop;
$done:
	shfl.sync.bfly.b32 %r5, %r3, 0, 31, -1;
	st.global.u32 [%rd4], %r5;`
	got := words(t, collatz, each(64, func(i int) uint32 { return uint32(i + 1) }), 0)
	for i, steps := range got {
		n := uint32(0)
		for v := i + 1; v != 1; n++ {
			if v%2 == 1 {
				v = 3*v + 1
			} else {
				v /= 2
			}
		}
		require.Equal(t, n, steps, "%d", i+1)
	}
	// Some end early, under a guard and by a branch.
	early := `
	st.global.u32 [%rd4], %r0;
	setp.lt.u32 %p1, %r1, 3;
	@%p1 ret;
	setp.gt.u32 %p2, %r1, 40;
	@%p2 bra $end;
	st.global.u32 [%rd4], %r1;
$end:`
	assert.Equal(t, each(50, func(i int) uint32 {
		if i < 3 || i > 40 {
			return 99
		}
		return uint32(i)
	}), words(t, early, count(50), 99))
	// A guard on an instruction: the others keep what they have.
	guarded := `
	mov.u32 %r2, 5;
	setp.ge.u32 %p1, %r1, %r0;
	@%p1 mov.u32 %r2, 6;
	st.global.u32 [%rd4], %r2;`
	assert.Equal(t, []uint32{5, 5, 6, 6}, words(t, guarded, count(4), 2))
}

func TestSharedMemoryAndBarriers(t *testing.T) {
	turned := `
	ld.global.u32 %r2, [%rd3];
	shl.b32 %r3, %r1, 2;
	mov.u32 %r4, buffer;
	add.s32 %r5, %r4, %r3;
	st.shared.u32 [%r5], %r2;
	bar.sync 0;
	sub.s32 %r6, 99, %r1;
	shl.b32 %r6, %r6, 2;
	add.s32 %r6, %r4, %r6;
	ld.shared.u32 %r7, [%r6];
	bar.sync 0;
	st.shared.u32 [%r6], %r1;
	st.global.u32 [%rd4], %r7;`
	assert.Equal(t, each(100, func(i int) uint32 { return uint32(99 - i) }), words(t, turned, count(100), 0))
	// Blocks have shared memory of their own, and nothing in it.
	_, err := try(t, turned, count(100), Dim{X: 2}, Dim{X: 100}, 0)
	assert.Equal(t, Race, err.(*Fault).Kind, "both write the same results")
}

func TestVectorsLocalMemoryAndWideRegisters(t *testing.T) {
	got := words(t, `
	mov.u64 %rd5, own;
	ld.global.u32 %r2, [%rd3];
	st.local.v2.u32 [%rd5], {%r2, %r1};
	st.local.u64 [own+8], %rd2;
	ld.local.v2.u32 {%r3, %r4}, [own];
	sub.s32 %r3, %r3, %r4;
	ld.local.u64 %rd6, [%rd5+8];
	cvt.u32.u64 %r5, %rd6;
	add.s32 %r3, %r3, %r5;
	st.global.u32 [%rd4], %r3;`, count(40), 0)
	assert.Equal(t, each(40, func(i int) uint32 { return uint32(4 * i) }), got)

	// Byte 3 of the words is 0xfe: 254 or -2.
	in := each(4, func(i int) uint32 { return 0xfe000000 })
	assert.Equal(t, each(4, func(int) uint32 { return 254 }), words(t, `
	ld.global.u8 %rs1, [%rd3+3];
	cvt.u32.u16 %r2, %rs1;
	st.global.u32 [%rd4], %r2;`, in, 0))
	assert.Equal(t, each(4, func(int) uint32 { return 0xffffffff }), words(t, `
	ld.global.s32 %rd5, [%rd3];
	shr.u64 %rd5, %rd5, 32;
	cvt.u32.u64 %r2, %rd5;
	st.global.u32 [%rd4], %r2;`, in, 0))

	got = words(t, `
	setp.ne.s32 %p1, %r1, 0;
	@%p1 bra $end;
	ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd0];
	st.global.v4.f32 [%rd1], {%f4, %f3, %f2, %f1};
$end:`, []uint32{1, 2, 3, 4}, 0)
	assert.Equal(t, []uint32{4, 3, 2, 1}, got)
}

func TestShuffle(t *testing.T) {
	for mask := range 32 {
		got := words(t, fmt.Sprintf(`
	ld.global.u32 %%r2, [%%rd3];
	shfl.sync.bfly.b32 %%r2, %%r2, %d, 31, -1;
	st.global.u32 [%%rd4], %%r2;`, mask), count(64), 0)
		assert.Equal(t, each(64, func(i int) uint32 { return uint32(i ^ mask) }), got)
	}
	// Segments of eight lanes, and lanes beyond the last one: they keep their own.
	got := words(t, `
	shfl.sync.bfly.b32 %r2, %r1, 12, 0x181f, -1;
	st.global.u32 [%rd4], %r2;`, count(32), 0)
	assert.Equal(t, each(32, func(i int) uint32 {
		if j := i ^ 12; j <= i&24|7 {
			return uint32(j)
		}
		return uint32(i)
	}), got)
}
