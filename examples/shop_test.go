package examples

import (
	"os/exec"
	"testing"
)

// The shop is a module of its own, which go test ./... does not enter.
func TestShopModule(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a database")
	}
	for _, args := range [][]string{{"vet", "./..."}, {"test", "./..."}} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = "shop"
		out, err := cmd.CombinedOutput()
		t.Logf("go %s: %s", args[0], out)
		if err != nil {
			t.Fatalf("go %s in shop: %v", args[0], err)
		}
	}
}
