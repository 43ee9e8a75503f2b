package cli

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// On a terminal a load that takes longer says how far it is, on one line that is gone at the end.
func TestLoadShowsProgress(t *testing.T) {
	a := remember(t, false)
	s, tty := newScreen(t, 120, 20)
	cmd := exec.CommandContext(t.Context(), program, "load", a.URL, "--rate", "40/s", "--for", "2s")
	var out bytes.Buffer
	cmd.Env = append(os.Environ(), "TERM=xterm")
	cmd.Stdout, cmd.Stderr = &out, tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	s.until(t, " of 2s  ")
	s.until(t, " 0 failed  ")
	if err := within(t, cmd, time.Minute); err != nil {
		t.Fatal(err)
	}
	s.until(t, "open\r\x1b[2K")
	if strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "asked           80  40.0/s\n") {
		t.Errorf("stdout:\n%q", out.String())
	}
}
