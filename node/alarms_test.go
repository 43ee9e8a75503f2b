package node

import (
	"os"
	"strings"
	"testing"
	"time"

	"servent/control/etcd"
	"servent/system"
)

func TestAlarms(t *testing.T) {
	for free, want := range map[uint64]string{
		0: "less than 16 MiB", 99 << 20: "less than 100 MiB", 300 << 20: "less than 500 MiB", 500 << 20: "", 1 << 40: "",
	} {
		if got := diskAlarm(free); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%d bytes free: %q, want %q", free, got, want)
		}
	}
	for size, want := range map[int64]string{
		20 << 20: "", etcd.Quota / 2: "", etcd.Quota * 6 / 10: "", etcd.Quota*6/10 + 1: "more than 60 %", etcd.Quota * 9 / 10: "more than 80 %", etcd.Quota: "more than 95 %",
	} {
		if got := controlAlarm(size); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%d bytes of control: %q, want %q", size, got, want)
		}
	}
	for _, tt := range []struct {
		ahead map[system.NodeID]time.Duration
		want  string
	}{
		{nil, ""},
		{map[system.NodeID]time.Duration{"a": 3 * time.Second, "b": -9 * time.Second}, ""},
		{map[system.NodeID]time.Duration{"a": 47 * time.Second, "b": time.Second}, "its clock is 40s ahead of a's; from 5m on they refuse each other"},
		{map[system.NodeID]time.Duration{"b": -3 * time.Minute, "a": -3*time.Minute - 1}, "its clock is 3m0s behind a's and 3m0s behind b's; from 5m on they refuse each other"},
	} {
		if got := clockAlarm(tt.ahead); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.ahead, got, tt.want)
		}
	}
	dir := t.TempDir()
	if took, err := syncTime(dir); err != nil || took <= 0 {
		t.Errorf("syncTime = %v, %v", took, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("syncTime leaves %v (%v)", left, err)
	}
	if _, err := syncTime(dir + "/none"); err == nil {
		t.Error("syncTime of no folder")
	}
}
