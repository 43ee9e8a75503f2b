package blob

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"servent/system"
)

// TestFullDisk runs itself in a process that may write no more than 64 KiB to a file: the kernel's answer
// takes the same way as that of a full disk.
func TestFullDisk(t *testing.T) {
	if os.Getenv("BLOB_TEST_FULL") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), "BLOB_TEST_FULL=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := store(t)
	// A bundle of one large file, stored while there was room.
	content := make([]byte, 100<<10)
	rand.Read(content)
	d, err := s.Put(bytes.NewReader(packed(t, tree{"large": string(content)}.make(t, t.TempDir()), ".")))
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
		t.Skip(err)
	}
	rand.Read(content)
	_, putErr := s.Put(bytes.NewReader(content))
	_, bundleErr := s.Bundle(d)
	for _, err := range []error{putErr, bundleErr} {
		if err == nil || !strings.Contains(err.Error(), "no room on the disk of "+s.Dir) || system.Next(err) == "" {
			t.Errorf("got %v, want a clear word and the next step", err)
		}
	}
	if len(left(t, s, "tmp"))+len(left(t, s, "bundles")) > 0 || len(left(t, s, "blobs")) != 1 {
		t.Errorf("left behind: %v %v %v", left(t, s, "tmp"), left(t, s, "bundles"), left(t, s, "blobs"))
	}
	if err := s.PutAs(hello, strings.NewReader("hello")); err != nil {
		t.Errorf("what fits is refused: %v", err)
	}
	fmt.Println(putErr)
}
