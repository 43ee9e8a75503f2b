package launch

import (
	"strings"
	"testing"

	"servent/system"
)

// A plan that is made before anything runs knows what this machine cannot run.
func TestPreviewProbes(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // nothing is installed
	seen := Preview(t.Context(), &system.System{Nodes: []system.NodeGroup{{Name: "a", Count: 1}}})
	if len(seen) != 1 || seen[0].Drivers["process"] != "" || !strings.Contains(seen[0].Drivers["image"], "Linux") && !strings.Contains(seen[0].Drivers["image"], "runc") {
		t.Errorf("drivers %v, want a process to work and an image not, with the reason", seen)
	}
}
