package ptx

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// product is a tile of tensor-core products: a is 16x8, b 8x8, c 16x8, line by line in
// one array.
const product = `
.version 7.8
.target sm_80
.address_size 64
.visible .entry k(.param .u64 in, .param .u64 out)
{
	.reg .b32 %r<20>;
	.reg .f32 %f<9>;
	.reg .b64 %rd<9>;
	ld.param.u64 %rd0, [in];
	ld.param.u64 %rd1, [out];
	mov.u32 %r0, %tid.x;
	shr.u32 %r1, %r0, 2;
	and.b32 %r2, %r0, 3;
	mad.lo.s32 %r3, %r1, 8, %r2;
	mul.wide.u32 %rd2, %r3, 4;
	add.s64 %rd2, %rd0, %rd2;
	ld.global.b32 %r4, [%rd2];
	ld.global.b32 %r5, [%rd2+256];
	ld.global.b32 %r6, [%rd2+16];
	ld.global.b32 %r7, [%rd2+272];
	mad.lo.s32 %r8, %r2, 8, %r1;
	mul.wide.u32 %rd3, %r8, 4;
	add.s64 %rd3, %rd0, %rd3;
	ld.global.b32 %r9, [%rd3+512];
	ld.global.b32 %r10, [%rd3+640];
	shl.b32 %r11, %r2, 1;
	mad.lo.s32 %r11, %r1, 8, %r11;
	mul.wide.u32 %rd4, %r11, 4;
	add.s64 %rd5, %rd0, %rd4;
	ld.global.v2.f32 {%f0, %f1}, [%rd5+768];
	ld.global.v2.f32 {%f2, %f3}, [%rd5+1024];
	mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f4, %f5, %f6, %f7}, {%r4, %r5, %r6, %r7}, {%r9, %r10}, {%f0, %f1, %f2, %f3};
	add.s64 %rd6, %rd1, %rd4;
	st.global.v2.f32 [%rd6], {%f4, %f5};
	st.global.v2.f32 [%rd6+256], {%f6, %f7};
	ret;
}
`

func runProduct(t *testing.T, text string, values []float32, threads int) ([]float32, error) {
	m, err := Parse(text)
	require.NoError(t, err)
	mem := NewMemory()
	in, out := mem.Floats("in", values), mem.Alloc("out", 4*128)
	if err := m.Launch(mem, "k", Dim{}, Dim{X: threads}, in, out); err != nil {
		return nil, err
	}
	return mem.Values(out)
}

// TestTensorCores multiplies small integers, all of whose sums are exact.
func TestTensorCores(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	values := make([]float32, 16*8+8*8+16*8)
	for i := range values {
		values[i] = float32(rng.IntN(2048) - 1024)
	}
	want := make([]float32, 128)
	for i := range want {
		want[i] = values[192+i]
		for k := range 8 {
			want[i] += values[i/8*8+k] * values[128+k*8+i%8]
		}
	}
	got, err := runProduct(t, product, values, 32)
	require.NoError(t, err)
	assert.Equal(t, want, got)

	for _, swap := range [][2]string{
		{"%r5, %r6", "%r6, %r5"}, {"{%r9, %r10}", "{%r10, %r9}"}, {"%f1, %f2", "%f2, %f1"}, {"%f4, %f5,", "%f5, %f4,"},
	} {
		broken := strings.Replace(product, "mma.sync", "MMA", 1)
		at := strings.Index(broken, "MMA")
		broken = broken[:at] + "mma.sync" + strings.Replace(broken[at+3:], swap[0], swap[1], 1)
		require.NotEqual(t, product, broken)
		got, err := runProduct(t, broken, values, 32)
		require.NoError(t, err)
		assert.NotEqual(t, want, got, "%v", swap)
	}

	_, err = runProduct(t, product, values, 31)
	assert.Equal(t, Divergence, err.(*Fault).Kind)
	values[7] = 0x1.000002p0
	_, err = runProduct(t, product, values, 32)
	assert.Equal(t, Operand, err.(*Fault).Kind)
	assert.ErrorContains(t, err, "not rounded to tf32")
}

func TestTensorCoresRoundTowardsZero(t *testing.T) {
	values := make([]float32, 16*8+8*8+16*8)
	for i := range 8 {
		values[i*8], values[128+i] = 1, 0x1.8p-24 // a's first column, b's first line
		values[192+i*8], values[192+i*8+1] = 1, -1
	}
	got, err := runProduct(t, product, values, 32)
	require.NoError(t, err)
	assert.Equal(t, float32(1), got[0], "1 + 1.5*2^-24")
	assert.Equal(t, float32(-0x1.fffffcp-1), got[1], "-1 + 1.5*2^-24")
	assert.Equal(t, float32(1), sumToZero([]float64{0x1p60, 1, -0x1p60}), "the sum before it is rounded is exact")
	assert.Equal(t, float32(0x1.fffffep0), sumToZero([]float64{2, -0x1p-30}))
	assert.Equal(t, float32(0x1.fffffep0), sumToZero([]float64{2, -0x1p-60}))
	assert.Equal(t, float32(-0x1.fffffep0), sumToZero([]float64{-2, 0x1p-60}))
	assert.Equal(t, "+Inf", fmt.Sprint(sumToZero([]float64{0x1p127, 0x1p127, 0x1p127})))
	assert.True(t, math.IsNaN(float64(sumToZero([]float64{math.Inf(1), math.Inf(-1)}))))
	assert.Equal(t, "+Inf", fmt.Sprint(sumToZero([]float64{1, math.Inf(1)})))
}
