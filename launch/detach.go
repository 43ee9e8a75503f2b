package launch

import (
	"cmp"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"

	"servent/system"
)

// Detach starts a process that outlives this one; what it writes goes to log. The channel receives once
// when the process ends while this one still lives: an error that quotes its last words, or nil.
func Detach(log *os.File, program string, args ...string) (<-chan error, error) {
	begin, err := log.Seek(0, io.SeekEnd)
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
	go func() {                  // ends with the process, or with this one
		err := cmd.Wait()
		if err != nil {
			if b, rerr := os.ReadFile(log.Name()); rerr == nil && int64(len(b)) >= begin {
				err = cmp.Or(lastWords(string(b[begin:])), err)
			}
		}
		ended <- err
	}()
	return ended, nil
}

// lastWords are the error, and the command to try, that a command line ended with; nil when there is none.
func lastWords(text string) error {
	var err error
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if said, ok := strings.CutPrefix(line, "servent: "); ok {
			err = errors.New(said)
		}
		if next, ok := strings.CutPrefix(line, "next: "); ok && err != nil {
			err = &system.Hint{Err: err, Next: next}
		}
	}
	return err
}
