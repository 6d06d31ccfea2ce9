package ci

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/berthdev/berth/docker/gpu"
	"github.com/berthdev/berth/docker/gpu/lease"
)

// rack is a machine with a whole GPU and a partitioned one.
var rack = gpu.Machine{GPUs: []gpu.GPU{
	{Index: 0, UUID: "GPU-a", Name: "H200"},
	{Index: 1, UUID: "GPU-b", Name: "H200", MIG: []gpu.Instance{
		{Index: 0, UUID: "MIG-c", Profile: "1g.18gb"}, {Index: 1, UUID: "MIG-d", Profile: "1g.18gb"},
	}},
}}

func entry(user string, count int, uuids ...string) lease.Entry {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	return lease.Entry{Holder: lease.Holder{Name: user + "'s", User: user, PID: 1, Since: since}, UUIDs: uuids, Count: count}
}

func TestGPUStates(t *testing.T) {
	s := gpuStates(rack, lease.Status{
		Leases: []lease.Entry{entry("alice", 0, "MIG-c", "GPU-gone"), {UUIDs: []string{"GPU-a"}}},
		Queue:  []lease.Entry{entry("bob", 1, "GPU-a")},
	}, gpu.Processes{"MIG-c": {1}, "MIG-d": {2}, "GPU-b": {3}})
	var got [][]string
	for _, g := range s.GPUs {
		got = append(got, []string{g.Index, g.UUID, g.Name, g.Use()})
	}
	assert.Equal(t, [][]string{
		{"0", "GPU-a", "H200", "somebody, by a lock that no lease explains"},
		{"1:0", "MIG-c", "H200 1g.18gb", "alice, alice's, since 2 Jan 03:04:05"},
		{"1:1", "MIG-d", "H200 1g.18gb", "without a lease: process 2"},
	}, got)
	assert.Len(t, s.Waiting, 1)
	assert.Equal(t, "idle", gpuStates(rack, lease.Status{}, nil).GPUs[0].Use())
}

func TestWhatALaunchWouldWaitFor(t *testing.T) {
	r := reservation{machine: rack, selection: "0,1:0", count: 2, uuids: []string{"GPU-a", "MIG-c", "MIG-d"},
		others: map[string]string{"MIG-c": "somebody computes on it without a lease: process 1"}}
	idle, w := r.wouldWait(lease.Status{
		Leases: []lease.Entry{entry("alice", 0, "GPU-a"), entry("carol", 0, "GPU-else")},
		Queue:  []lease.Entry{entry("bob", 1, "MIG-d")},
	}, []string{"MIG-c", "GPU-a"})
	assert.Empty(t, idle)
	assert.Equal(t, "\tGPU 0: alice, alice's, since 2 Jan 03:04:05\n\tGPU 1:0: somebody computes on it without a lease: process 1\n"+
		"\tbefore this: bob, bob's, since 2 Jan 03:04:05, for 1", r.state(w))
	idle, w = r.wouldWait(lease.Status{}, nil)
	assert.Equal(t, r.uuids, idle)
	assert.Equal(t, "\ta lock that no lease explains, in the folder of the leases", r.state(w))
	assert.Equal(t, "GPU 0, GPU 1:0, GPU 1:1", r.what())
	r.selection = "auto:2"
	assert.Equal(t, "2 idle of 3 GPUs", r.what())
}
