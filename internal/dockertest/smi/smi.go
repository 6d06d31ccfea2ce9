// Package smi is an nvidia-smi for a machine without a GPU: a shell script that prints
// what the real one does, as far as Berth and its tests read that. It needs nothing but
// the shell, so that it runs in the smallest container.
package smi

import (
	"fmt"
	"slices"
	"strings"
)

// What the machine has.
const (
	A = "GPU-aaaa0000-1111-2222-3333-444444444444"
	B = "GPU-bbbb0000-1111-2222-3333-444444444444"

	Driver = "580.95.05"
	CUDA   = "13.0"
)

// UUIDs print the UUIDs of the GPUs that there are, one on each line.
const UUIDs = "nvidia-smi --query-gpu=uuid --format=csv,noheader"

// Given are the GPUs of the machine that a value of NVIDIA_VISIBLE_DEVICES names, in the
// machine's order.
func Given(visible string) (uuids []string) {
	names := strings.Split(visible, ",")
	for i, uuid := range []string{A, B} {
		if visible == "all" || slices.Contains(names, fmt.Sprint(i)) || slices.Contains(names, uuid) {
			uuids = append(uuids, uuid)
		}
	}
	return uuids
}

// Script is an nvidia-smi that sees these GPUs.
func Script(uuids ...string) string {
	if len(uuids) == 0 {
		return "#!/bin/sh\necho No devices were found\nexit 6\n"
	}
	var list, table, query, drivers strings.Builder
	for i, uuid := range uuids {
		fmt.Fprintf(&list, "\techo 'GPU %d: NVIDIA H200 (UUID: %s)'\n", i, uuid)
		fmt.Fprintf(&query, "\techo %s\n", uuid)
		fmt.Fprintf(&drivers, "\techo %s\n", Driver)
		for _, line := range []string{
			fmt.Sprintf("|   %d  NVIDIA H200                    On  |   00000000:%02d:00.0 Off |                    0 |", i, i+1),
			"| N/A   30C    P0             76W /  700W |       0MiB / 143771MiB |      0%      Default |",
			"|                                         |                        |             Disabled |",
			"+-----------------------------------------+------------------------+----------------------+",
		} {
			fmt.Fprintf(&table, "\techo '%s'\n", line)
		}
	}
	return fmt.Sprintf(`#!/bin/sh
case "$*" in
--list-gpus)
%s	;;
"--query-gpu=uuid --format=csv,noheader")
%s	;;
"--query-gpu=driver_version --format=csv,noheader")
%s	;;
"")
	echo '+-----------------------------------------------------------------------------------------+'
	echo '| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-8s |'
	echo '+-----------------------------------------+------------------------+----------------------+'
	echo '| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |'
	echo '| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |'
	echo '|                                         |                        |               MIG M. |'
	echo '|=========================================+========================+======================|'
%s	;;
*) exit 2 ;;
esac
`, list.String(), query.String(), drivers.String(), Driver, Driver, CUDA, table.String())
}
