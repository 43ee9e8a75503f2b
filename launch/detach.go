package launch

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
)

// Detach starts a process that outlives this one; what it writes goes to log. The channel receives once
// when the process ends while this one still lives: an error that quotes its last words, or nil.
func Detach(log *os.File, program string, args ...string) (<-chan error, error) {
	begin, err := log.Seek(0, 2)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...)
	detach(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1) // buffered: nobody may wait for it
	go func() {
		err := cmd.Wait()
		if err == nil {
			ended <- nil
			return
		}
		if b, rerr := os.ReadFile(log.Name()); rerr == nil && int64(len(b)) >= begin {
			lines := strings.Split(string(bytes.TrimSpace(b[begin:])), "\n")
			err = errors.New(strings.TrimPrefix(lines[len(lines)-1], "servent: "))
		}
		ended <- err
	}()
	return ended, nil
}

// Free says that no process runs the folder's system.
func Free(f Folder) bool {
	lock, err := os.OpenFile(f.path("lock"), os.O_RDWR, 0)
	if err != nil {
		return true
	}
	defer lock.Close()
	ok, err := lockFile(lock)
	return ok && err == nil
}
