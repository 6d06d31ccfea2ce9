package ptx

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestUnknownIsRefused has what the interpreter doesn't know, or what is wrong.
func TestUnknownIsRefused(t *testing.T) {
	for body, want := range map[string]string{
		"frob.s32 %r2, %r1;":                              "frob.s32 isn't known",
		"add.sat.s32 %r2, %r1, 1;":                        "add.sat.s32 isn't known",
		"add.rn.ftz.f32 %f2, %f1, %f1;":                   "isn't known",
		"fma.rz.f32 %f2, %f1, %f1, %f1;":                  "isn't known",
		"atom.global.add.u32 %r2, [%rd1], 1;":             "isn't known",
		"ld.volatile.global.u32 %r2, [%rd1];":             "isn't known",
		"ld.global.ca.u32 %r2, [%rd1];":                   "isn't known",
		"ld.u32 %r2, [%rd1];":                             "isn't known",
		"ld.const.u32 %r2, [%rd1];":                       "isn't known",
		"ld.global.v3.u32 {%r2, %r3, %r4}, [%rd1];":       "isn't known",
		"ld.global.v4.u64 {%rd2,%rd3,%rd4,%rd5}, [%rd1];": "isn't known",
		"st.global.u8 [%rd1], %rs1;":                      "isn't known",
		"st.param.u32 [k_param_2], %r1;":                  "isn't known",
		"st.global.nc.u32 [%rd1], %r1;":                   "isn't known",
		"bar.sync 1;":                                     "barrier 0",
		"bar.sync 0, 64;":                                 "barrier 0",
		"bar.red.popc.u32 %r2, 0, %p1;":                   "isn't known",
		"ret.uni;":                                        "isn't known",
		"shfl.sync.up.b32 %r2, %r1, 1, 0, -1;":            "isn't known",
		"shfl.sync.bfly.b32 %r2|%p1, %r1, 1, 31, -1;":     "character",
		"@%p1 bra.uni $x;\n$x:":                           "guard",
		"bra $y;":                                         "label $y",
		"bra %r1;":                                        "one label",
		"$x:\n$x:":                                        "twice",
		"add.s32 %r2, %r1;":                               "3",
		"add.s32 %r2, %r1, 1, 1;":                         "3",
		"add.s32 5, %r1, 1;":                              "no register",
		"add.s32 %r99, %r1, 1;":                           "no register %r99",
		"add.s32 %r2, %rd1, 1;":                           "doesn't fit",
		"add.s32 %f2, %r1, 1;":                            "doesn't fit",
		"add.s64 %rd2, %rd1, %tid.x;":                     "32 bits",
		"mov.u32 %r2, %laneid;":                           "no register %laneid",
		"mov.u32 %r2, nothing;":                           "no variable nothing",
		"mov.f32 %f1, buffer;":                            "no variable",
		"add.rn.f32 %f1, %f2, 1;":                         "constant",
		"add.rn.f32 %f1, %f2, 0d3FF0000000000000;":        "constant",
		"add.s32 %r2, %r1, 0f3F800000;":                   "constant",
		"add.s32 %r2, %r1, 0x1ffffffff;":                  "doesn't fit",
		"mov.u16 %rs1, 65536;":                            "doesn't fit",
		"mov.u32 %r2, 012;":                               "not a constant",
		"mov.u32 %r2, 12U;":                               "not a constant",
		"ld.global.f32 %rd2, [%rd1];":                     "doesn't fit",
		"ld.global.u64 %r2, [%rd1];":                      "doesn't fit",
		"ld.global.u32 %r2, %rd1;":                        "brackets",
		"ld.global.u32 %r2, [%r1];":                       "doesn't fit",
		"ld.global.u32 {%r2}, [%rd1];":                    "values",
		"ld.global.v2.u32 %r2, [%rd1];":                   "values",
		"ld.param.u32 %r2, [other];":                      "no parameter",
		"ld.param.u32 %r2, [k_param_0];":                  "is of type u64",
		"ld.param.u32 %r2, [k_param_2+4];":                "parameter",
		"setp.lt.and.s32 %p1, %r1, 1, %p2;":               "isn't known",
		"setp.lt.s32 %p1|%p2, %r1, 1;":                    "character",
		"setp.lo.u32 %p1, %r1, 1;":                        "isn't known",
		"@%r1 ret;":                                       "doesn't fit",
		"mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f1};":     "isn't known",
		"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1,%f2}, {%r1}, {%r2}, {%f1};": "vector of 4",
		".pragma \"unroll\";":          "pragma",
		".loc 1 2 3;":                  "where",
		".reg .f16 %h<3>;":             "type",
		".reg .b32 %r<3>;":             "twice",
		".shared .align 3 .b8 odd[4];": "aligned to 3",
		".shared .b8 large[50000];":    "shared memory",
		"/* never ends":                "comment",
		"mov.u32 %r2, \"x":             "string",
	} {
		_, err := Parse(entry(body))
		if assert.Error(t, err, body) {
			assert.ErrorContains(t, err, want, body)
		}
	}
	good := entry("")
	_, err := Parse(good)
	require.NoError(t, err)
	for from, to := range map[string]string{
		".version 7.8":     ".version 8.0",
		".target sm_80":    ".target sm_90a",
		".address_size 64": ".address_size 32",
		".visible .entry":  ".extern .entry",
		".visible":         ".visible .func f;",
		".entry k":         ".global .u32 g; .entry k",
		"{":                ".reqntid 32 {",
		"ret;":             "",
	} {
		_, err := Parse(strings.Replace(good, from, to, 1))
		assert.Error(t, err, to)
	}
	_, err = Parse(good + good[strings.Index(good, ".visible"):])
	assert.ErrorContains(t, err, "twice")
}

// FuzzParse: no text crashes the parser, and none that it takes lacks an end.
func FuzzParse(f *testing.F) {
	f.Add(entry(""))
	f.Add(product)
	f.Add(entry("$l:\nsetp.lt.s32 %p1, %r1, 5;\n@%p1 bra $l;\nld.global.v2.f32 {%f1, %f2}, [%rd1+-8];\nmov.f64 %fd1, 0d3FF0000000000000;"))
	f.Add("/**/ .shared .align 4 .b8 x[3];\n.weak .entry k() .maxntid 1, 2, 3 { .pragma \"nounroll\"; @!%p0 ret; }")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		for _, name := range m.Kernels() {
			k := m.kernels[name]
			require.NotEmpty(t, k.program)
			for i, in := range k.program {
				require.True(t, in.meet >= 0 && in.meet <= len(k.program) && in.meet != i)
				require.True(t, in.target >= 0 && in.target < len(k.program))
			}
		}
	})
}
