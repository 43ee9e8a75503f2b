package container

import (
	"runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// denied are the system calls that Docker's default profile keeps from a container without further rights
// ("Significant syscalls blocked by the default profile", docs.docker.com/engine/security/seccomp), with those
// of the new mount interface and of io_uring, which it blocks as well. Differs from Docker's: it is a list of
// what is denied, not of what is allowed, so that a call newer than the list passes.
var denied = []string{"acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module",
	"finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms", "get_mempolicy", "init_module",
	"io_uring_enter", "io_uring_register", "io_uring_setup", "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load",
	"keyctl", "lookup_dcookie", "mbind", "mount", "mount_setattr", "move_mount", "move_pages", "name_to_handle_at", "nfsservctl",
	"open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "process_vm_readv", "process_vm_writev",
	"query_module", "quotactl", "quotactl_fd", "reboot", "request_key", "set_mempolicy", "setns", "settimeofday", "stime",
	"swapoff", "swapon", "sysfs", "_sysctl", "umount", "umount2", "unshare", "uselib", "userfaultfd", "ustat", "vm86", "vm86old"}

func seccomp() *specs.LinuxSeccomp {
	arches := map[string][]specs.Arch{
		"amd64": {specs.ArchX86_64, specs.ArchX86, specs.ArchX32},
		"arm64": {specs.ArchAARCH64, specs.ArchARM},
	}[runtime.GOARCH]
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
		unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	perm, nosys := uint(unix.EPERM), uint(unix.ENOSYS)
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: arches, Syscalls: []specs.LinuxSyscall{
		{Names: denied, Action: specs.ActErrno, ErrnoRet: &perm},
		// Its flags lie in memory, where no filter looks: C libraries then use clone.
		{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &nosys},
		// AF_VSOCK would reach the machine that a virtual machine runs on.
		{Names: []string{"socket"}, Action: specs.ActErrno, ErrnoRet: &perm,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: unix.AF_VSOCK, Op: specs.OpEqualTo}}},
	}}
	for bit := uint64(1); bit != 0; bit <<= 1 { // any of the flags; a masked comparison wants one value
		if namespaces&bit != 0 {
			s.Syscalls = append(s.Syscalls, specs.LinuxSyscall{Names: []string{"clone"}, Action: specs.ActErrno, ErrnoRet: &perm,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: bit, ValueTwo: bit, Op: specs.OpMaskedEqual}}})
		}
	}
	return s
}
