package conductor

import (
	"testing"
	"time"

	"servent/system"
)

func TestBecomes(t *testing.T) {
	at := time.Unix(100, 0)
	for _, tt := range []struct {
		name    string
		was, is *system.InstanceSeen
		want    string
	}{
		{"starts", nil, &system.InstanceSeen{State: system.StateStarting}, ""},
		{"ready", &system.InstanceSeen{State: system.StateStarting}, &system.InstanceSeen{State: system.StateReady, Started: at, Since: at.Add(812 * time.Millisecond)}, "ready after 810ms"},
		{"still ready", &system.InstanceSeen{State: system.StateReady}, &system.InstanceSeen{State: system.StateReady, Pid: 9}, ""},
		{"ready in a new version", &system.InstanceSeen{State: system.StateReady, Spec: "a"}, &system.InstanceSeen{State: system.StateReady, Spec: "b"}, "ready"},
		{"ended", &system.InstanceSeen{State: system.StateReady}, &system.InstanceSeen{State: system.StateBackoff, Restarts: 1, Exit: "exit 3"}, "ended: exit 3; starts again soon"},
		{"still waits", &system.InstanceSeen{State: system.StateBackoff, Restarts: 1}, &system.InstanceSeen{State: system.StateBackoff, Restarts: 1}, ""},
		{"ended again", &system.InstanceSeen{State: system.StateBackoff, Restarts: 1}, &system.InstanceSeen{State: system.StateBackoff, Restarts: 2}, "ended; starts again soon"},
		{"back-off not seen", &system.InstanceSeen{State: system.StateReady}, &system.InstanceSeen{State: system.StateStarting, Restarts: 1, Exit: "signal killed"}, "ended and was started again: signal killed"},
		{"unhealthy", &system.InstanceSeen{State: system.StateReady}, &system.InstanceSeen{State: system.StateUnhealthy, Why: "GET /healthz: 500"}, "unhealthy: GET /healthz: 500"},
		{"failed", &system.InstanceSeen{State: system.StateStarting}, &system.InstanceSeen{State: system.StateFailed, Why: "no such program"}, "failed: no such program"},
		{"finished", &system.InstanceSeen{State: system.StateReady}, &system.InstanceSeen{State: system.StateDone}, "finished"},
	} {
		if got := becomes(tt.was, tt.is); got != tt.want {
			t.Errorf("%s: becomes = %q, want %q", tt.name, got, tt.want)
		}
	}
}
