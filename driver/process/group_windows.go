package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"servent/driver"
	"servent/system"
)

// A job object holds an instance: all that its program starts is in it, and it is killed when its last
// handle closes, which is when the node ends, however it ends. So there is no guard and nothing to sweep.

type guard struct{}

func (g *guard) close() {}

func guardMissing() map[string]string { return nil }

// Sweep has nothing to do: the system has killed what an earlier node process started.
func (d *Driver) Sweep(context.Context) ([]system.InstanceID, error) { return nil, nil }

type limiter struct{}

func newLimiter() *limiter { return &limiter{} }

func (l *limiter) describe(caps *driver.Caps) {
	caps.Limits = []string{"memory", "cpu", "pids"}
	caps.Missing["pause"] = "Windows has no SIGSTOP"
	caps.Missing["rlimit"] = "Windows cannot limit open files"
	caps.Missing["signals"] = "Windows has none: a stop is Ctrl-Break, which programs without a console do not get"
}

type group struct {
	pid     int
	job     windows.Handle
	watched bool // never: the job bounds memory
}

var ntResumeProcess = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtResumeProcess")

// spawn makes the process suspended, puts it into its job and lets it run.
func (d *Driver) spawn(s driver.Spec, _ string, build func() *exec.Cmd) (*exec.Cmd, *group, error) {
	job, err := newJob(s.Limits)
	if err != nil {
		return nil, nil, err
	}
	cmd := build()
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_SUSPENDED | windows.CREATE_NEW_PROCESS_GROUP}
	if err := cmd.Start(); err != nil {
		windows.CloseHandle(job)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, windows.ERROR_BAD_EXE_FORMAT) {
			err = fmt.Errorf("%w: %w", err, driver.ErrArtifact)
		}
		return nil, nil, err
	}
	g := &group{pid: cmd.Process.Pid, job: job}
	err = cmd.Process.WithHandle(func(handle uintptr) {
		if e := windows.AssignProcessToJobObject(job, windows.Handle(handle)); e != nil {
			err = fmt.Errorf("put the process into its job: %w", e)
		} else if status, _, _ := ntResumeProcess.Call(handle); status != 0 {
			err = fmt.Errorf("let the process run: %w", windows.NTStatus(status))
		}
	})
	if err != nil {
		cmd.Process.Kill()
		cmd.Wait() // it was killed; there is nothing to learn
		windows.CloseHandle(job)
		return nil, nil, err
	}
	return cmd, g, nil
}

// cpuRate is JOBOBJECT_CPU_RATE_CONTROL_INFORMATION; the rate is in hundredths of a percent of all processors.
type cpuRate struct{ flags, rate uint32 }

func newJob(limits system.Limits) (windows.Handle, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return 0, fmt.Errorf("make a job: %w", err)
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	info.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if limits.Memory > 0 {
		info.BasicLimitInformation.LimitFlags |= windows.JOB_OBJECT_LIMIT_JOB_MEMORY
		info.JobMemoryLimit = uintptr(limits.Memory)
	}
	if limits.Pids > 0 {
		info.BasicLimitInformation.LimitFlags |= windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS
		info.BasicLimitInformation.ActiveProcessLimit = uint32(limits.Pids)
	}
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err == nil && limits.CPUs > 0 {
		const enable, hardCap = 1, 4
		share := limits.CPUs / float64(windows.GetActiveProcessorCount(windows.ALL_PROCESSOR_GROUPS))
		rate := cpuRate{enable | hardCap, uint32(max(1, min(10000, share*10000)))}
		_, err = windows.SetInformationJobObject(job, windows.JobObjectCpuRateControlInformation,
			uintptr(unsafe.Pointer(&rate)), uint32(unsafe.Sizeof(rate)))
	}
	if err != nil {
		windows.CloseHandle(job)
		return 0, fmt.Errorf("limit a job: %w", err)
	}
	return job, nil
}

func (d *Driver) forget(g *group) { windows.CloseHandle(g.job) }

// signal has one word on Windows: Ctrl-Break to the instance's console group.
func (g *group) signal(string) error {
	return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(g.pid))
}

func (g *group) kill() { windows.TerminateJobObject(g.job, 1) }

// accounting is JOBOBJECT_BASIC_ACCOUNTING_INFORMATION; times are in units of 100ns.
type accounting struct {
	user, kernel, periodUser, periodKernel int64
	faults, total, active, terminated      uint32
}

func (g *group) accounts() (a accounting, err error) {
	err = windows.QueryInformationJobObject(g.job, windows.JobObjectBasicAccountingInformation,
		uintptr(unsafe.Pointer(&a)), uint32(unsafe.Sizeof(a)), nil)
	return a, err
}

func (g *group) alive() bool {
	a, err := g.accounts()
	return err == nil && a.active > 0
}

// strays: nobody leaves a job.
func (g *group) strays() int { return 0 }

func (g *group) private() int64 { return 0 }

func (g *group) oom() bool { return false }

// stats: memory is the most that the job ever had; the system tells no other figure of a job.
func (g *group) stats() (driver.Stats, error) {
	a, err := g.accounts()
	if err != nil {
		return driver.Stats{}, fmt.Errorf("stats of process %d: %w", g.pid, err)
	}
	var info windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	err = windows.QueryInformationJobObject(g.job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)), nil)
	if err != nil {
		return driver.Stats{}, fmt.Errorf("stats of process %d: %w", g.pid, err)
	}
	return driver.Stats{CPU: time.Duration(a.user+a.kernel) * 100, Memory: int64(info.PeakJobMemoryUsed), Pids: int(a.active)}, nil
}

func knownSignal(string) error { return nil }

func exitOf(state *os.ProcessState, err error) driver.Exit {
	if state == nil {
		return driver.Exit{Code: -1, Err: err}
	}
	return driver.Exit{Code: state.ExitCode()}
}

func lead(*exec.Cmd) {}

func holder(int) string { return "" }
