package ptx

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMemory(t *testing.T) {
	m := NewMemory()
	p := m.Alloc("p", 12)
	assert.ErrorContains(t, m.Write(p+4, make([]byte, 9)), "9 bytes at offset 4 of p, which has 12")
	require.NoError(t, m.Write(p+4, []byte{1, 2, 3}))
	b := make([]byte, 2)
	require.NoError(t, m.Read(b, p+5))
	assert.Equal(t, []byte{2, 3}, b)
	assert.ErrorContains(t, m.Read(b, p+6), "byte 7 of p was never written")
	assert.ErrorContains(t, m.Read(b, p+11), "at offset 11")
	_, err := m.All(p)
	assert.ErrorContains(t, err, "byte 0 of p")
	f := m.Floats("f", []float32{1.5, -2})
	v, err := m.Values(f)
	require.NoError(t, err)
	assert.Equal(t, []float32{1.5, -2}, v)
	require.NoError(t, m.Free(f))
	for _, gone := range []Pointer{0, f, f + 1<<globalBits, 1} {
		assert.ErrorContains(t, m.Read(b, gone), "nothing at address")
		assert.ErrorContains(t, m.Write(gone, b), "nothing at address")
		assert.ErrorContains(t, m.Free(gone), "nothing at address")
	}
	k, err := Parse(entry("ld.global.u32 %r2, [%rd0];"))
	require.NoError(t, err)
	err = k.Launch(m, "k", Dim{}, Dim{}, f, f, uint32(0))
	require.Error(t, err)
	assert.Equal(t, OutOfBounds, err.(*Fault).Kind, "memory that is freed")
}
