//go:build unix

package cli

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"servent/lab/result"
)

// Ctrl-C in the middle of a full comparison keeps the rates that were tried, marked partial, and leaves nothing running.
func TestCompareFullIsInterrupted(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	w := example(t, "counter")
	cmd := exec.CommandContext(t.Context(), program, "-C", w.dir, "compare", "--full", "--vary", "architecture=single,partitioned", "--nodes", "1,2", "--samples", "1200")
	story, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(story)
	var said []string
	for tried := false; lines.Scan(); { // a line every ten seconds
		said = append(said, lines.Text())
		if !tried && strings.Contains(lines.Text(), " tried (") {
			tried = true
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	exit, ok := errors.AsType[*exec.ExitError](cmd.Wait())
	if !ok || exit.ExitCode() != 1 || !strings.Contains(out.String(), "PARTIAL: interrupted after ") {
		t.Fatalf("%v\n%s\n%s", exit, out.String(), strings.Join(said, "\n"))
	}
	dir := filepath.Join(w.dir, ".servent", "results", "0001")
	r, err := result.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, v := range r.Variants {
		for _, p := range v.Points {
			if p.Tried && p.Requests > 0 {
				tried++
			}
		}
	}
	if r.Partial == "" || tried == 0 || r.Verdict.Kind == "winner" {
		t.Errorf("partial %q, %d points tried, verdict %+v; want what was tried, and no winner", r.Partial, tried, r.Verdict)
	}
	if page, err := os.ReadFile(filepath.Join(dir, "report.html")); err != nil || !strings.Contains(string(page), "interrupted after") {
		t.Errorf("the report says nothing of it: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, ".servent", "lab")); err == nil {
		t.Errorf("%d stages are left behind", len(left))
	}
}
