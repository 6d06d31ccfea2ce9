package ptx

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// store stores what each thread has in %r1.
const store = "st.global.u32 [%rd4], %r1;\n"

// TestFaults plants one fault of each kind and place, and has a harmless twin for each.
func TestFaults(t *testing.T) {
	const threads = 64
	for name, c := range map[string]struct {
		kind        Kind
		body, twin  string // twin: no fault
		want        string
		grid, block Dim
	}{
		"load beyond the end": {
			kind: OutOfBounds, want: "4 bytes at offset 256 of in, which has 256",
			body: store + "ld.global.u32 %r2, [%rd3+4];",
			twin: store + "ld.global.u32 %r2, [%rd3];",
		},
		"store beyond the end": {
			kind: OutOfBounds, want: "of out",
			body: "st.global.u32 [%rd4+4], %r1;",
			twin: store,
		},
		"load before the start": {
			kind: OutOfBounds, want: "",
			body: store + "ld.global.u32 %r2, [%rd3+-4];",
			twin: store + "ld.global.u32 %r2, [%rd3+0];",
		},
		"load from nowhere": {
			kind: OutOfBounds, want: "nothing at address 0x0",
			body: store + "ld.global.u32 %r2, [%rd2];",
			twin: store + "ld.global.u32 %r2, [%rd3];",
		},
		"shared beyond the end": {
			kind: OutOfBounds, want: "of buffer", block: Dim{X: 1},
			body: store + "st.shared.u32 [buffer+512], %r1;",
			twin: store + "st.shared.u32 [buffer+508], %r1;",
		},
		"local beyond the end": {
			kind: OutOfBounds, want: "of own",
			body: store + "st.local.u32 [own+16], %r1;",
			twin: store + "st.local.u32 [own+12], %r1;",
		},
		"vector beyond the end": {
			kind: OutOfBounds, want: "8 bytes at",
			body: store + "ld.global.v2.u32 {%r2, %r3}, [%rd0+256];",
			twin: store + "ld.global.v2.u32 {%r2, %r3}, [%rd0+248];",
		},
		"misaligned": {
			kind: Misaligned, want: "offset 2",
			body: store + "ld.global.u32 %r2, [%rd0+2];",
			twin: store + "ld.global.u32 %r2, [%rd0+4];",
		},
		"misaligned vector": {
			kind: Misaligned, want: "16 bytes at offset 8",
			body: store + "ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd0+8];",
			twin: store + "ld.global.v2.u32 {%r2, %r3}, [%rd0+8];",
		},
		"alignment by chance": {
			kind: Misaligned, want: "aligned to 8",
			body: store + "st.local.v4.u32 [own], {%r1, %r1, %r1, %r1};",
			twin: store + "st.local.v2.u32 [own], {%r1, %r1};",
		},
		"global never written": {
			kind: Uninitialised, want: "of out was never written",
			body: store + "ld.global.u32 %r2, [%rd1+252];",
			twin: "bar.sync 0;\n" + store + "bar.sync 0;\nld.global.u32 %r2, [%rd1+252];",
		},
		"shared never written": {
			kind: Uninitialised, want: "buffer",
			body: store + "ld.shared.u32 %r2, [buffer];",
			twin: store + "ld.global.u32 %r2, [%rd0];",
		},
		"half of a vector": {
			kind: Uninitialised, want: "byte 4 of own",
			body: store + "st.local.u32 [own], %r1;\nld.local.u64 %rd5, [own];",
			twin: store + "st.local.u32 [own], %r1;\nst.local.u32 [own+4], %r1;\nld.local.u64 %rd5, [own];",
		},
		"register": {
			kind: Uninitialised, want: "%r2",
			body: store + "add.s32 %r3, %r2, 1;",
			twin: store + "add.s32 %r3, %r1, 1;",
		},
		"register in one lane": {
			kind: Uninitialised, want: "thread 63",
			body: store + "setp.ne.s32 %p1, %r1, 63;\n@%p1 mov.u32 %r2, 5;\nadd.s32 %r3, %r2, 1;",
			twin: store + "setp.ne.s32 %p1, %r1, 63;\n@%p1 mov.u32 %r2, 5;\n@!%p1 mov.u32 %r2, 5;\nadd.s32 %r3, %r2, 1;",
		},
		"predicate": {
			kind: Uninitialised, want: "%p1",
			body: store + "@%p1 ret;",
			twin: store + "setp.eq.s32 %p1, %r1, 0;\n@%p1 ret;",
		},
		"result left out": {
			kind: "", want: "of out was never written",
			body: "setp.ne.s32 %p1, %r1, 63;\n@%p1 " + store,
			twin: store,
		},
		"two write": {
			kind: Race, want: "writes bytes 0 to 3 of out",
			body: "st.global.u32 [%rd1], %r1;",
			twin: store,
		},
		"two write the same": {
			kind: Race, want: "thread 0",
			body: "st.global.u32 [%rd1], %r0;",
			twin: store,
		},
		"read what one writes": {
			kind: Race, want: "reads",
			body: store + "ld.global.u32 %r2, [%rd1];",
			twin: store + "bar.sync 0;\nld.global.u32 %r2, [%rd1];",
		},
		"write what one reads": {
			kind: Race, want: "writes",
			body: store + "ld.global.u32 %r2, [%rd0];\nst.global.u32 [%rd3], %r1;",
			twin: store + "ld.global.u32 %r2, [%rd0];\nbar.sync 0;\nst.global.u32 [%rd3], %r1;",
		},
		"write what all read": {
			kind: Race, want: "thread 63",
			body: store + "ld.global.u32 %r2, [%rd0+252];\nsetp.eq.s32 %p1, %r1, 63;\n@%p1 st.global.u32 [%rd0+252], %r1;",
			twin: store + "ld.global.u32 %r2, [%rd3];\nsetp.eq.s32 %p1, %r1, 63;\n@%p1 st.global.u32 [%rd0+252], %r1;",
		},
		"shared": {
			kind: Race, want: "buffer",
			body: store + "st.shared.u32 [buffer], %r0;",
			twin: store + "setp.eq.s32 %p1, %r1, 0;\n@%p1 st.shared.u32 [buffer], %r0;",
		},
		"two blocks write": {
			kind: Race, want: "block number 0", grid: Dim{X: 2},
			body: store,
			twin: store,
		},
		"two blocks, barrier": {
			kind: Race, want: "reads", grid: Dim{X: 2},
			body: "mov.u32 %r2, %ctaid.x;\nsetp.ne.s32 %p1, %r2, 0;\n@%p1 bra $b;\n" + store + "$b:\nbar.sync 0;\nsetp.eq.s32 %p1, %r2, 0;\n@%p1 ret;\nld.global.u32 %r3, [%rd4];",
			twin: "mov.u32 %r2, %ctaid.x;\nsetp.ne.s32 %p1, %r2, 0;\n@%p1 bra $b;\n" + store + "$b:\nbar.sync 0;",
		},
		"a constant written": {
			kind: Race, want: "in",
			body: store + "ld.global.nc.u32 %r2, [%rd3];\nst.global.u32 [%rd3], %r1;",
			twin: store + "ld.global.u32 %r2, [%rd3];\nst.global.u32 [%rd3], %r1;",
		},
		"written, constant": {
			kind: Race, want: "constant",
			body: store + "ld.global.nc.u32 %r2, [%rd4];",
			twin: store + "ld.global.nc.u32 %r2, [%rd3];",
		},
		"barrier in a branch": {
			kind: Divergence, want: "thread 40 doesn't",
			body: store + "setp.eq.s32 %p1, %r1, 40;\n@%p1 bra $b;\nbar.sync 0;\n$b:",
			twin: store + "setp.lt.s32 %p1, %r1, 99;\n@%p1 bra $b;\nbar.sync 0;\n$b:",
		},
		"guarded barrier": {
			kind: Divergence, want: "barrier",
			body: store + "setp.eq.s32 %p1, %r1, 40;\n@%p1 bar.sync 0;",
			twin: store + "setp.le.s32 %p1, %r1, 99;\n@%p1 bar.sync 0;",
		},
		"barrier after an end": {
			kind: Divergence, want: "thread 5 doesn't",
			body: store + "setp.eq.s32 %p1, %r1, 5;\n@%p1 ret;\nbar.sync 0;",
			twin: store + "bar.sync 0;\nsetp.eq.s32 %p1, %r1, 5;\n@%p1 ret;",
		},
		"a warp has ended": {
			kind: Divergence, want: "thread 32 will never reach",
			body: store + "setp.ge.s32 %p1, %r1, 32;\n@%p1 ret;\nbar.sync 0;",
			twin: store + "bar.sync 0;\nsetp.ge.s32 %p1, %r1, 32;\n@%p1 ret;",
		},
		"shuffle in a branch": {
			kind: Divergence, want: "",
			body: store + "setp.eq.s32 %p1, %r1, 3;\n@%p1 bra $b;\nshfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\n$b:",
			twin: store + "setp.ge.s32 %p1, %r1, 32;\n@%p1 bra $b;\nshfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\n$b:",
		},
		"absent lane": {
			kind: Operand, want: "lane 16", block: Dim{X: 16},
			body: store + "shfl.sync.bfly.b32 %r2, %r1, 16, 31, 0xffff;",
			twin: store + "shfl.sync.bfly.b32 %r2, %r1, 8, 31, 0xffff;",
		},
		"division by zero": {
			kind: Operand, want: "division by zero",
			body: store + "div.s32 %r2, %r0, %r1;",
			twin: store + "add.s32 %r3, %r1, 1;\ndiv.s32 %r2, %r0, %r3;",
		},
		"remainder by zero": {
			kind: Operand, want: "division by zero",
			body: store + "rem.u32 %r2, %r0, 0;",
			twin: store + "rem.u32 %r2, %r0, 7;",
		},
		"for ever": {
			kind: Endless, want: "still runs",
			body: "$l:\nbra.uni $l;",
			twin: store,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.block.X == 0 {
				c.block.X = threads
			}
			in := count(c.block.X)
			_, err := try(t, c.body, in, c.grid, c.block, 9)
			require.Error(t, err)
			assert.ErrorContains(t, err, c.want)
			if f := (*Fault)(nil); errors.As(err, &f) {
				assert.Equal(t, c.kind, f.Kind, err)
				assert.Positive(t, f.Line)
			} else {
				assert.Empty(t, c.kind, err)
			}
			if name != "two blocks write" { // its twin is any launch of one block
				_, err = try(t, c.twin, in, c.grid, c.block, 9)
				assert.NoError(t, err)
			}
		})
	}
}
