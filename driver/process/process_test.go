package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/driver"
	"servent/system"
)

func unixOnly(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals")
	}
}

// serving waits until a serving instance listens, so that its signal handler stands.
func serving(t *testing.T, i *instance) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; {
		conn, err := net.Dial("tcp", i.Endpoint().Address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

func TestGracefulStop(t *testing.T) {
	unixOnly(t)
	for _, tt := range []struct{ signal, want string }{{"", "terminated"}, {"SIGINT", "interrupt"}, {"int", "interrupt"}} {
		s := spec(t, 1)
		s.Stop.Signal = tt.signal
		i, _ := run(t, newDriver(t), s, program("serve"))
		serving(t, i)
		if err := i.Stop(t.Context(), time.Minute); err != nil {
			t.Fatal(err)
		}
		if exit := waited(t, i); exit.Code != 7 {
			t.Errorf("exit = %v, want that of the program, 7", exit)
		}
		if b, err := os.ReadFile(filepath.Join(s.Dir, "goodbye")); string(b) != tt.want {
			t.Errorf("goodbye = %q, %v, want %q", b, err, tt.want)
		}
	}
}

func TestDeafIsKilledAfterGrace(t *testing.T) {
	unixOnly(t)
	i, log := run(t, newDriver(t), spec(t, 1), program("deaf"))
	lines(t, log, 1)
	const grace = 150 * time.Millisecond
	begin := time.Now()
	if err := i.Stop(t.Context(), grace); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < grace {
		t.Errorf("killed after %v, want the grace of %v first", took, grace)
	}
	if exit := waited(t, i); exit.Signal != "killed" || exit.Code != -1 || exit.OOM {
		t.Errorf("exit = %+v, want signal killed", exit)
	}
}

func TestStopEndsWithItsContext(t *testing.T) {
	unixOnly(t)
	i, log := run(t, newDriver(t), spec(t, 1), program("deaf"))
	lines(t, log, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var stops sync.WaitGroup
	stops.Go(func() {
		if err := i.Stop(ctx, time.Hour); err != nil {
			t.Error(err)
		}
	})
	cancel()
	stops.Wait()
	waited(t, i)
}

func TestCloseKills(t *testing.T) {
	d := newDriver(t)
	var all []*instance
	for range 3 {
		i, _ := run(t, d, spec(t, 1), program("deaf"))
		all = append(all, i)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		waited(t, i)
	}
	p, err := d.Prepare(t.Context(), program("deaf"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Start(t.Context(), spec(t, 1)); !errors.Is(err, errClosed) {
		t.Errorf("Start() of a closed driver = %v, want %v", err, errClosed)
	}
	if err := all[0].Exec(t.Context(), []string{"x"}); err == nil {
		t.Error("Exec in an ended instance = nil, want an error")
	}
}

func TestManyAtOnce(t *testing.T) {
	d := newDriver(t)
	p, err := d.Prepare(t.Context(), program("exit", "3"))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 12 {
		s := spec(t, 1)
		all.Go(func() {
			i, err := p.Start(t.Context(), s)
			if err != nil {
				t.Error(err)
				return
			}
			if exit := <-i.Wait(); exit.Code != 3 {
				t.Errorf("exit = %v, want 3", exit)
			}
		})
	}
	all.Wait()
	if left, _ := os.ReadDir(d.opts.StateDir); len(left) != 0 {
		t.Errorf("%d notes are left", len(left))
	}
	if len(d.running) != 0 {
		t.Errorf("%d are noted as running", len(d.running))
	}
}

// TestEnvironmentIsExact: the program sees what it was given and our token, its folder, and absolute
// paths for what is in the bundle.
func TestEnvironmentIsExact(t *testing.T) {
	t.Setenv("OF_THE_NODE", "secret")
	bundle := t.TempDir()
	for _, name := range []string{"conf.yaml", "deep/page.html"} {
		os.MkdirAll(filepath.Dir(filepath.Join(bundle, name)), 0o700)
		if err := os.WriteFile(filepath.Join(bundle, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := program("show", "conf.yaml", "./deep/page.html", "deep", "nothing.txt", "-v", "../conf.yaml", ".", "a b\nc")
	a.Dir = bundle
	s := spec(t, 1)
	s.Env = []string{"PORT=1", "with.dots=yes", "EMPTY=", "MANY=a b=c"}
	if runtime.GOOS == "windows" {
		s.Env = append(s.Env, "SystemRoot="+os.Getenv("SystemRoot"))
	}
	i, log := run(t, newDriver(t), s, a)
	waited(t, i)
	var env, args []string
	for _, l := range log.Tail(-1) {
		kind, text, _ := strings.Cut(l.Text, " ")
		switch {
		case kind == "dir":
			want, err := filepath.EvalSymlinks(s.Dir)
			if err != nil || text != want {
				t.Errorf("working folder = %s, want %s", text, want)
			}
		case kind == "arg":
			args = append(args, text)
		case kind == "env" && !strings.HasPrefix(text, tokenName+"="):
			env = append(env, text)
		}
	}
	want := []string{filepath.Join(bundle, "conf.yaml"), filepath.Join(bundle, "deep/page.html"), filepath.Join(bundle, "deep"),
		"nothing.txt", "-v", "../conf.yaml", ".", "a b"}
	if diff := cmp.Diff(want, args); diff != "" {
		t.Error(diff)
	}
	slices.Sort(env)
	slices.Sort(s.Env)
	if diff := cmp.Diff(s.Env, env); diff != "" {
		t.Error(diff)
	}
}

func TestResolve(t *testing.T) {
	unixOnly(t)
	bundle, bin := t.TempDir(), t.TempDir()
	tool := func(path string, mode os.FileMode) string {
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte("#!/no/such/interpreter\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	api := tool(filepath.Join(bundle, "bin/api"), 0o700)
	app := tool(filepath.Join(bundle, "app.py"), 0o600)
	own := tool(filepath.Join(bundle, "own"), 0o700)
	python := tool(filepath.Join(bin, "python3"), 0o700)
	tool(filepath.Join(bin, "text"), 0o600)
	os.Mkdir(filepath.Join(bundle, "python3"), 0o700)
	d := New(Options{Self: "/the/binary"})
	env := []string{"PATH=/nowhere:", "PATH=relative:/nowhere:" + bin}
	for _, tt := range []struct {
		run  []string
		want []string
		fail string
	}{
		{run: []string{"./bin/api", "-x"}, want: []string{api, "-x"}},
		{run: []string{"bin/api"}, want: []string{api}},
		{run: []string{"own"}, want: []string{own}},
		{run: []string{python, "app.py"}, want: []string{python, app}},
		{run: []string{"python3", "app.py"}, want: []string{python, app}},
		{run: []string{"servent", "increment"}, want: []string{"/the/binary", "increment"}},
		{run: []string{"ruby"}, fail: fmt.Sprintf(`no executable "ruby"; looked in the bundle %s and in PATH relative:/nowhere:%s`, bundle, bin)},
		{run: []string{"text"}, fail: `no executable "text"`},
		{run: []string{"./bin/cart"}, fail: fmt.Sprintf(`no executable "./bin/cart"; looked in the bundle %s: `, bundle)},
		{run: []string{"./app.py"}, fail: "./app.py is in the bundle and no executable file"},
		{run: []string{"../" + filepath.Base(bin) + "/python3"}, fail: "no executable"},
		{run: []string{"/nowhere/x"}, fail: `no executable "/nowhere/x": `},
		{run: []string{"./bin"}, fail: "no executable file"},
	} {
		_, got, err := d.resolve(tt.run, bundle, env)
		if tt.fail != "" {
			if !errors.Is(err, driver.ErrArtifact) || !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("resolve(%q) = %v, want an ErrArtifact with %q", tt.run, err, tt.fail)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("resolve(%q): %v %s", tt.run, err, diff)
		}
	}
}

func TestStartRefuses(t *testing.T) {
	unixOnly(t)
	dir := t.TempDir()
	script, text := filepath.Join(dir, "script"), filepath.Join(dir, "text")
	for path, content := range map[string]string{script: "#!/no/such/interpreter -x\n", text: "no program at all\n"} {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := newDriver(t)
	for _, tt := range []struct {
		name   string
		run    []string
		change func(*driver.Spec)
		want   string
		never  bool
	}{
		{"no such program", []string{"no-such-program"}, nil, `start api/1: no executable "no-such-program"; looked in PATH `, true},
		{"interpreter", []string{script}, nil, "wants the interpreter /no/such/interpreter, which is not here", true},
		{"format", []string{text}, nil, "is no program for " + runtime.GOOS, true},
		{"signal", []string{script}, func(s *driver.Spec) { s.Stop.Signal = "SIGHELLO" }, `stop signal "SIGHELLO": want a name such as`, true},
		{"port", []string{script}, func(s *driver.Spec) { s.Port = taken.Addr().(*net.TCPAddr).Port }, "is in use", false},
		{"folder", []string{script}, func(s *driver.Spec) { s.Dir = filepath.Join(text, "x") }, "private folder", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := d.Prepare(t.Context(), driver.Artifact{Software: system.Software{Kind: system.Process, Run: tt.run}})
			if err != nil {
				t.Fatal(err)
			}
			s := spec(t, 1)
			if tt.change != nil {
				tt.change(&s)
			}
			_, err = p.Start(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, driver.ErrArtifact) != tt.never {
				t.Errorf("Start() = %v, want %q, never = %v", err, tt.want, tt.never)
			}
			if tt.name == "port" && runtime.GOOS == "linux" && !strings.Contains(err.Error(), fmt.Sprintf("(pid %d)", os.Getpid())) {
				t.Errorf("Start() = %v, want who has the port", err)
			}
		})
	}
	if left, _ := os.ReadDir(d.opts.StateDir); len(left) != 0 || len(d.running) != 0 {
		t.Errorf("%d notes and %d instances are left", len(left), len(d.running))
	}
}

func TestExec(t *testing.T) {
	unixOnly(t)
	s := spec(t, 1)
	s.Env = append(s.Env, "WORD=ready")
	i, log := run(t, newDriver(t), s, program("deaf"))
	lines(t, log, 1)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"sh", "-c", `[ "$WORD" = ready ]`}, ""},
		{[]string{"/bin/sh", "-c", "echo of its own > made"}, ""},
		{[]string{"sh", "-c", "echo first; echo not ready >&2; exit 4"}, "run /bin/sh: exit status 4: not ready"},
		{[]string{"sh", "-c", "exit 4"}, "exit status 4"},
		{[]string{"no-such-program"}, `no executable "no-such-program"`},
	} {
		err := i.Exec(t.Context(), tt.args)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if (got == "") != (tt.want == "") || !strings.HasSuffix(strings.Replace(got, "/usr/bin/", "/bin/", 1), tt.want) && !strings.Contains(got, tt.want) {
			t.Errorf("Exec(%q) = %q, want %q", tt.args, got, tt.want)
		}
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "made")); err != nil {
		t.Errorf("a command does not run in the instance's folder: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := i.Exec(ctx, []string{"sh", "-c", "sleep 60 & sleep 60"})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Exec that takes too long = %v, want its context's error", err)
	}
	if st, err := i.Stats(t.Context()); err != nil || st.Pids != 1 {
		t.Errorf("Stats() = %+v, %v, want one process", st, err)
	}
}

// brokenWriter fails at once.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestOutputNobodyTakes: a program that says much is not held up by a writer that fails.
func TestOutputNobodyTakes(t *testing.T) {
	unixOnly(t)
	d := newDriver(t)
	p, err := d.Prepare(t.Context(), driver.Artifact{Software: system.Software{Kind: system.Process,
		Run: []string{"sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo 12345678901234567890; i=$((i+1)); done; exit 5"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []driver.Spec{{}, {Stdout: brokenWriter{}, Stderr: brokenWriter{}}} {
		s.Env = BaseEnv(os.Environ())
		i, err := p.Start(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if exit := waited(t, i); exit.Code != 5 {
			t.Errorf("exit = %v, want 5", exit)
		}
	}
}

func TestBaseEnv(t *testing.T) {
	got := BaseEnv([]string{"HOME=/root", "AWS_SECRET=x", "PATH=/bin", "LANG=", "SSH_AUTH_SOCK=y", "LC_ALL=C", "path=z"})
	want := []string{"HOME=/root", "PATH=/bin", "LC_ALL=C"}
	if runtime.GOOS == "windows" {
		want = append(want, "path=z")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, ok := lookup(BaseEnv(nil), "PATH"); !ok && runtime.GOOS != "windows" {
		t.Error("no PATH at all")
	}
}
