package load

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fine sleeps by a timerfd that the runtime's poller waits for, like for a socket.
type fine struct {
	file *os.File
	raw  syscall.RawConn
	buf  [8]byte
}

// newFine returns nil where there is no such thing.
func newFine() *fine {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil
	}
	f := &fine{file: os.NewFile(uintptr(fd), "timerfd")}
	if f.raw, err = f.file.SyscallConn(); err != nil {
		f.close()
		return nil
	}
	return f
}

func (f *fine) sleep(d time.Duration) bool {
	var failed error
	err := f.raw.Control(func(fd uintptr) {
		failed = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}, nil)
	})
	if err != nil || failed != nil {
		return false
	}
	_, err = f.file.Read(f.buf[:])
	return err == nil
}

func (f *fine) close() { _ = f.file.Close() } // it holds nothing
