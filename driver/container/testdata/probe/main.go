// Command probe is what the tests' images run: it answers, ends, eats memory, or tries what a container must
// not be able to do. It is built without cgo, so that an image needs nothing else.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	verb := "serve"
	if len(os.Args) > 1 {
		verb = os.Args[1]
	}
	switch verb {
	case "serve":
		serve()
	case "exit":
		os.Exit(3)
	case "eat":
		eat()
	case "true":
	case "hang":
		time.Sleep(time.Hour)
	case "links":
		links, err := net.Interfaces()
		if c, no := net.Dial("tcp", os.Args[2]); no != nil {
			err = no
		} else {
			c.Close()
		}
		if err != nil || len(links) != 1 {
			fmt.Println(links, err)
			os.Exit(1)
		}
	case "exists":
		if _, err := os.Stat(os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "false":
		fmt.Println("not well")
		os.Exit(1)
	default:
		fmt.Println("unknown verb", verb)
		os.Exit(2)
	}
}

func eat() {
	var kept [][]byte
	for {
		b := make([]byte, 4<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		time.Sleep(time.Millisecond)
	}
}

func serve() {
	fmt.Println("listening")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello from a container") })
	http.HandleFunc("/me", func(w http.ResponseWriter, r *http.Request) { host, _ := os.Hostname(); fmt.Fprint(w, host) })
	http.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Join(os.Environ(), "\n")) })
	http.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) { hold(w) })
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		b, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		}
		w.Write(b)
	})
	http.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if err := os.WriteFile(r.FormValue("path"), b, 0o644); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	http.HandleFunc("/fork", func(w http.ResponseWriter, r *http.Request) {
		most, _ := strconv.Atoi(r.FormValue("n"))
		var made []*exec.Cmd
		var err error
		for len(made) < most && err == nil {
			cmd := exec.Command("/bin/probe", "hang")
			cmd.Env = []string{"GOMAXPROCS=1"}
			if err = cmd.Start(); err == nil {
				made = append(made, cmd)
			}
		}
		fmt.Fprintf(w, "made %d: %v", len(made), err)
		for _, cmd := range made {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	http.HandleFunc("/burn", func(w http.ResponseWriter, r *http.Request) {
		long, _ := time.ParseDuration(r.FormValue("for"))
		end := time.Now().Add(long)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				for time.Now().Before(end) {
				}
			})
		}
		both.Wait()
	})
	http.HandleFunc("/remove", func(w http.ResponseWriter, r *http.Request) {
		if err := os.Remove(r.FormValue("path")); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})
	always := func(r *http.Request) (*url.URL, error) { return url.Parse(os.Getenv("HTTP_PROXY")) }
	straight := &net.Dialer{Timeout: time.Second}
	for path, t := range map[string]*http.Transport{
		"/ask":      {Proxy: http.ProxyFromEnvironment},
		"/straight": {DialContext: straight.DialContext},
		"/through":  {Proxy: always},
		"/tunnel":   {DialContext: tunnel},
		"/socks": {Proxy: func(r *http.Request) (*url.URL, error) {
			return &url.URL{Scheme: "socks5", Host: os.Getenv("SERVENT_SOCKS")}, nil
		}},
	} {
		client := http.Client{Timeout: 3 * time.Second, Transport: t}
		t.DisableKeepAlives = true
		http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			res, err := client.Get(r.FormValue("url"))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer res.Body.Close()
			w.WriteHeader(res.StatusCode)
			io.Copy(w, res.Body)
		})
	}
	ln, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	http.Serve(ln, nil)
}

// tunnel dials by CONNECT.
func tunnel(ctx context.Context, _, address string) (net.Conn, error) {
	at, err := url.Parse(os.Getenv("HTTP_PROXY"))
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("tcp", at.Host)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(3 * time.Second))
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address)
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || res.StatusCode != http.StatusOK {
		c.Close()
		return nil, fmt.Errorf("CONNECT: %v %v", res, err)
	}
	return c, nil
}

// hold tries to break out, and says what it could.
func hold(w io.Writer) {
	out := map[string]any{"uid": os.Getuid(), "gid": os.Getgid()}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":\t"); ok && (strings.HasPrefix(k, "Cap") || k == "NoNewPrivs" || k == "Seccomp" || k == "Groups") {
			out[k] = v
		}
	}
	did := []string{}
	try := func(what string, err error) {
		if err == nil {
			did = append(did, what)
		}
	}
	for _, path := range []string{"/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/mm/transparent_hugepage/enabled",
		"/proc/sys/vm/drop_caches", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/modprobe", "/proc/irq/default_smp_affinity", "/sys/power/state", "/sys/kernel/uevent_helper",
		"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/release_agent"} {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		try("write "+path, err)
		if err == nil {
			f.Close()
		}
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/fuse", "/dev/net/tun", "/dev/kvm",
		"/sys/firmware/dmi/tables/DMI", "/proc/2/environ"} {
		f, err := os.Open(path)
		if err == nil {
			var n int
			if n, err = f.Read(make([]byte, 1)); n == 0 {
				err = io.EOF
			}
			f.Close()
		}
		try("read "+path, err)
	}
	roots := []string{}
	for _, path := range []string{"/", "/proc/1/root/", "/proc/self/cwd/../../../../"} {
		all, err := os.ReadDir(path)
		if err != nil {
			did = append(did, "fail to read "+path)
		}
		for _, e := range all {
			roots = append(roots, e.Name())
		}
	}
	slices.Sort(roots)
	out["root"] = slices.Compact(roots)
	fds, _ := filepath.Glob("/proc/1/fd/*")
	for _, fd := range fds { // what runc or the node left open leads out
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "/dev/") && !strings.HasPrefix(to, "/proc/") {
			did = append(did, "hold "+to)
		}
	}
	try("mount", syscall.Mount("none", "/tmp", "tmpfs", 0, ""))
	try("unshare a user namespace", syscall.Unshare(syscall.CLONE_NEWUSER))
	try("unshare mounts", syscall.Unshare(syscall.CLONE_NEWNS))
	try("set the clock", syscall.Settimeofday(&syscall.Timeval{Sec: 1}))
	nothing := unsafe.Pointer(&[]byte{0}[0])
	for name, number := range map[string]uintptr{"init_module": syscall.SYS_INIT_MODULE, "delete_module": syscall.SYS_DELETE_MODULE, "kexec_load": syscall.SYS_KEXEC_LOAD,
		"pivot_root": syscall.SYS_PIVOT_ROOT, "swapon": syscall.SYS_SWAPON, "add_key": syscall.SYS_ADD_KEY, "keyctl": syscall.SYS_KEYCTL,
		"acct": syscall.SYS_ACCT, "quotactl": syscall.SYS_QUOTACTL, "syslog": syscall.SYS_SYSLOG} {
		if _, _, no := syscall.RawSyscall6(number, uintptr(nothing), 0, 0, 0, 0, 0); no != syscall.EPERM && no != syscall.ENOSYS && no != syscall.EACCES {
			did = append(did, "come to "+name+": "+no.Error())
		}
	}
	try("reboot", syscall.Reboot(0))
	try("set the host's name", syscall.Sethostname([]byte("x")))
	_, _, no := syscall.RawSyscall(syscall.SYS_SOCKET, 40, syscall.SOCK_STREAM, 0) // AF_VSOCK
	if no == 0 {
		did = append(did, "open a vsock")
	}
	if syscall.Mknod("/tmp/disk", syscall.S_IFBLK|0o600, 254<<8) == nil { // made, perhaps; never opened
		f, err := os.Open("/tmp/disk")
		try("open a disk", err)
		if err == nil {
			f.Close()
		}
	}
	if c, err := net.DialTimeout("tcp", "192.0.2.1:80", 200*time.Millisecond); err == nil {
		did = append(did, "reach the outside")
		c.Close()
	}
	out["did"] = did
	devices, _ := filepath.Glob("/dev/*")
	slices.Sort(devices)
	out["devices"] = devices
	pids, _ := filepath.Glob("/proc/[0-9]*")
	out["processes"] = len(pids)
	links, _ := net.Interfaces()
	names := []string{}
	for _, l := range links {
		names = append(names, l.Name)
	}
	out["links"] = names
	json.NewEncoder(w).Encode(out)
}
