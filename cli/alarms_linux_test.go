package cli

import (
	"strings"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

// TestAlarms: a machine whose disk fills up is said before it is full, in ps, node ls and doctor.
func TestAlarms(t *testing.T) {
	t.Parallel()
	w := &world{t: t, dir: small(t, "300m")}
	w.write("compose.yaml", fleetFile)
	w.up("--listen", "127.0.0.1:"+free(t), "--as", "a")
	w.until("the alarm", time.Minute, func(s admin.State) bool {
		return len(s.Nodes) == 1 && len(s.Voters) == 1 && len(s.Nodes[0].Alarms) == 1 && s.Nodes[0].Alarms[0].Kind == system.AlarmDisk
	})
	const said = "less than 500 MiB are free"
	for _, verb := range [][]string{{"ps"}, {"node", "ls"}} {
		if out, err := w.run(verb...); err != nil || !strings.Contains(out, "alarm: a: "+said) {
			t.Errorf("%v: %v\n%s", verb, err, out)
		}
	}
	out, err := w.run("doctor")
	if err == nil || !strings.Contains(out, "ALARM") || !strings.Contains(out, said) || !strings.Contains(out, "next: df -h") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if !strings.Contains(out, "1 voter (a)") {
		t.Errorf("doctor says nothing of the fleet:\n%s", out)
	}
	w.down()
}
