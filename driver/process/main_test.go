package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

// The test binary is also every program that the tests run: the first argument is its role.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "role=") {
		play(strings.TrimPrefix(os.Args[1], "role="), os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

func play(role string, args []string) {
	switch role {
	case "serve": // answers; says goodbye in a file when asked to end
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
		go http.ListenAndServe(net.JoinHostPort("127.0.0.1", os.Getenv("PORT")), http.HandlerFunc(
			func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") }))
		sig := <-ended
		if len(args) > 0 { // and needs a while for it
			d, _ := time.ParseDuration(args[0])
			<-time.After(d)
		}
		os.WriteFile("goodbye", []byte(sig.String()), 0o600)
		os.Exit(7)
	case "deaf": // cannot be asked to end
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Println("deaf")
		select {}
	case "exit":
		fmt.Println("some output")
		fmt.Fprintln(os.Stderr, "no database")
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "show": // environment, folder and arguments
		for _, e := range os.Environ() {
			fmt.Println("env", e)
		}
		dir, _ := os.Getwd()
		fmt.Println("dir", dir)
		for _, a := range args {
			fmt.Println("arg", a)
		}
	case "tree": // a child and a grandchild, all deaf; prints their numbers
		signal.Ignore(syscall.SIGTERM)
		fmt.Println(os.Getpid())
		if depth, _ := strconv.Atoi(args[0]); depth > 0 {
			child := exec.Command(os.Args[0], "role=tree", strconv.Itoa(depth-1))
			child.Stdout = os.Stdout
			if err := child.Start(); err != nil {
				fmt.Println(err)
			}
		}
		select {}
	case "leave", "daemon": // ends and leaves a child behind; a daemon is in no group and session of ours
		child := exec.Command(os.Args[0], "role=tree", "0")
		out, _ := child.StdoutPipe()
		if role == "daemon" {
			detach(child)
		}
		child.Start()
		line, _ := bufio.NewReader(out).ReadString('\n')
		fmt.Print(line)
		os.Exit(0)
	case "hog": // takes memory
		n, _ := strconv.Atoi(args[0])
		b := make([]byte, n<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		fmt.Println("took it")
		select {}
	case "node": // a node that runs a tree and says nothing more
		d := New(Options{StateDir: args[0]})
		p, err := d.Prepare(context.Background(), program("tree", "2"))
		if err == nil {
			_, err = p.Start(context.Background(), driver.Spec{Instance: "api/1", Host: "127.0.0.1", Dir: args[0], Env: BaseEnv(os.Environ()),
				Stdout: os.Stdout, Stderr: os.Stderr})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		select {}
	default:
		if !playMore(role, args) {
			fmt.Fprintln(os.Stderr, "no such role:", role)
			os.Exit(99)
		}
	}
}

// program is the artifact of a role.
func program(role string, args ...string) driver.Artifact {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return driver.Artifact{Software: system.Software{Kind: system.Process, Run: append([]string{self, "role=" + role}, args...)}}
}

func newDriver(t *testing.T) *Driver {
	t.Helper()
	d := New(Options{StateDir: filepath.Join(t.TempDir(), "state"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return d
}

var nextPort atomic.Int64

// port is a free one below those that the system gives to others.
func port(t *testing.T) int {
	t.Helper()
	for range 1000 {
		n := 10000 + (os.Getpid()*37+int(nextPort.Add(1)))%20000
		if ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", n)); err == nil {
			ln.Close()
			return n
		}
	}
	t.Fatal("no free port")
	return 0
}

func spec(t *testing.T, _ int) driver.Spec {
	t.Helper()
	n := port(t)
	return driver.Spec{Instance: "api/1", Host: "127.0.0.1", Port: n, Dir: t.TempDir(),
		Env: append(BaseEnv(os.Environ()), fmt.Sprint("PORT=", n))}
}

// run starts a role and returns a log of what it says.
func run(t *testing.T, d *Driver, s driver.Spec, a driver.Artifact) (*instance, *driver.Log) {
	t.Helper()
	log, err := driver.OpenLog(filepath.Join(t.TempDir(), "out.log"), driver.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	s.Stdout, s.Stderr = log.Stream(driver.Stdout), log.Stream(driver.Stderr)
	p, err := d.Prepare(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	i, err := p.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Stop(context.Background(), 0) })
	return i.(*instance), log
}

// lines waits for n lines of output.
func lines(t *testing.T, log *driver.Log, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	var all []string
	enough := errors.New("enough")
	err := log.Follow(ctx, -1, func(l driver.Line) error {
		all = append(all, l.Text)
		if len(all) == n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("%d lines of output, want %d: %q", len(all), n, all)
	}
	return all
}

func waited(t *testing.T, i driver.Instance) driver.Exit {
	t.Helper()
	select {
	case exit := <-i.Wait():
		return exit
	case <-time.After(15 * time.Second):
		t.Fatal("no exit within 15s")
		return driver.Exit{}
	}
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		ends := program("exit", "3")
		text := filepath.Join(t.TempDir(), "text")
		if err := os.WriteFile(text, []byte("no program"), 0o600); err != nil {
			t.Fatal(err)
		}
		with := func(run ...string) driver.Artifact {
			return driver.Artifact{Software: system.Software{Kind: system.Process, Run: run}, Dir: filepath.Dir(text)}
		}
		bad := map[string]driver.Artifact{
			"nothing to run":     with(),
			"an empty program":   with(""),
			"not in the bundle":  with("./bin/api"),
			"nowhere":            with(filepath.Join(filepath.Dir(text), "nowhere")),
			"another kind":       {Software: system.Software{Kind: system.Wasm, Run: []string{"x"}}},
			"the bundle is none": {Software: system.Software{Kind: system.Process, Run: []string{"x"}}, Dir: text},
		}
		if runtime.GOOS != "windows" {
			bad["not executable"] = with("./text")
		}
		return drivertest.Subject{Driver: newDriver(t), Good: program("serve"), Ends: &ends, Bad: bad, Spec: spec, Path: "/", Says: "hello"}
	})
}
