package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"servent/blob"
	"servent/driver"
	"servent/driver/wasm"
	"servent/examples"
	"servent/launch"
	"servent/system"
	"servent/system/notation"
)

func (e *env) fnCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fn",
		Short: "Make a function, and run one without a system around it",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(e.fnNewCmd(), e.fileFlag(e.fnRunCmd()))
	return cmd
}

var functionName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func (e *env) fnNewCmd() *cobra.Command {
	var lang string
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Make the folder NAME with a function that answers, and its file",
		Long: "New writes a function's source and a compose.yaml with its build command, in Go (which lives on from call to call), C (thrown\n" +
			"away after each) or AssemblyScript (lives on). It overwrites nothing.",
		Example: "  servent fn new hello && servent fn run hello --call 'GET /ada'\n" +
			"  servent fn new hello --lang c",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return e.fnNew(args[0], lang) },
	}
	cmd.Flags().StringVar(&lang, "lang", examples.Languages()[0], "`LANGUAGE`: "+strings.Join(examples.Languages(), ", "))
	return cmd
}

func (e *env) fnNew(name, lang string) error {
	if !functionName.MatchString(name) {
		return misuse{&system.Hint{Err: fmt.Errorf("want a name of small letters, digits and -, have %q", name), Next: "servent fn new hello"}}
	}
	if !slices.Contains(examples.Languages(), lang) {
		return misuse{&system.Hint{Err: fmt.Errorf("--lang: want %s; have %q", strings.Join(examples.Languages(), ", "), lang), Next: "servent fn new " + name}}
	}
	dir := filepath.Join(e.dir, name)
	if err := examples.WriteFunction(lang, name, dir); err != nil {
		return err
	}
	fmt.Fprintf(e.out, "cd %s\n", dir)
	fmt.Fprintf(e.err, "next: servent fn run %s --call 'GET /ada', or: cd %s && servent up\n", dir, dir)
	return nil
}

// fnOptions are the words of servent fn run, as they were typed.
type fnOptions struct {
	port        int
	memory      string
	fuel        string
	timeout     time.Duration
	output      string
	concurrency int
	env         []string
	reach       []string
	call        string
	headers     []string
	body        string
}

func (e *env) fnRunCmd() *cobra.Command {
	var o fnOptions
	cmd := &cobra.Command{
		Use:   "run FILE.wasm|FOLDER [SERVICE]",
		Short: "Serve one function here, or call it once, within the limits that it has in a system",
		Long: "Run takes a module, or the folder of a system with one: then it builds the module when sources are newer, and takes limits and\n" +
			"environment from the file. It serves until it is interrupted, or with --call makes one call: the answer's body goes to stdout,\n" +
			"its status and the function's log to stderr, and the exit code is 1 for a status from 400 on.",
		Example: "  servent fn run hello.wasm --port 8080 --fuel 1e9\n" +
			"  servent fn run hello --call 'POST /ada' --body - < request.json\n" +
			"  servent fn run . --reach db=127.0.0.1:18080",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error { return e.fnRun(cmd.Context(), args, o) },
	}
	f := cmd.Flags()
	f.IntVar(&o.port, "port", 8080, "`PORT` to serve at, on this machine alone; 0: any that is free")
	f.StringVar(&o.memory, "memory", "", "`SIZE` of its memory, like 64M; default the file's, else 256M")
	f.StringVar(&o.fuel, "fuel", "", "`N` instructions a call, like 1e9; default the file's, else no bound")
	f.DurationVar(&o.timeout, "timeout", 0, "of a call; default the file's, else 30s")
	f.StringVar(&o.output, "output", "", "`SIZE` of an answer; default the file's, else 64M")
	f.IntVar(&o.concurrency, "concurrency", 0, "`N` calls at a time; default the file's, else 64")
	f.StringArrayVar(&o.env, "env", nil, "`NAME=VALUE` of its environment, more than once for several")
	f.StringArrayVar(&o.reach, "reach", nil, "`SERVICE=HOST:PORT` that it may call, more than once for several")
	f.StringVar(&o.call, "call", "", "`REQUEST` like \"GET /ada\": one call instead of serving")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "with --call: `HEADER` like \"Name: value\", more than once for several")
	f.StringVar(&o.body, "body", "", "with --call: `TEXT`, @FILE, or - for standard input")
	return cmd
}

func (e *env) fnRun(ctx context.Context, args []string, o fnOptions) error {
	var request *http.Request
	if o.call != "" {
		var err error
		if request, err = e.fnRequest(o); err != nil {
			return misuse{&system.Hint{Err: err, Next: "servent fn run --help"}}
		}
	} else if o.body != "" || len(o.headers) > 0 {
		return misuse{&system.Hint{Err: errors.New("--body and --header belong to --call"), Next: "servent fn run --help"}}
	}
	a, spec, err := e.function(ctx, args)
	if err != nil {
		return err
	}
	if err := o.change(&spec); err != nil {
		return misuse{&system.Hint{Err: err, Next: "servent fn run --help"}}
	}
	spec.Stderr = e.err
	cache, err := os.UserCacheDir()
	if err == nil {
		cache = filepath.Join(cache, "servent", "compiled")
		err = os.MkdirAll(cache, 0o700)
	}
	if err != nil {
		cache = "" // it is compiled each time
	}
	p, err := wasm.New(wasm.Options{Cache: cache}).Prepare(ctx, a)
	if err != nil {
		return err
	}
	defer p.Close()
	i, err := p.Start(ctx, spec)
	if err != nil {
		return err
	}
	defer func() { _ = i.Stop(context.WithoutCancel(ctx), time.Second) }()
	if request != nil {
		return e.fnCall(request.WithContext(ctx), i.Endpoint().Handler)
	}
	return e.fnServe(ctx, o.port, spec.Instance, i.Endpoint().Handler)
}

// function is the module that the words name, and how the file has it run.
func (e *env) function(ctx context.Context, args []string) (a driver.Artifact, spec driver.Spec, err error) {
	at := filepath.Join(e.dir, args[0])
	if filepath.IsAbs(args[0]) {
		at = args[0]
	}
	info, err := os.Stat(at)
	if err != nil {
		return a, spec, misuse{err}
	}
	if !info.IsDir() {
		if len(args) > 1 {
			return a, spec, misuse{fmt.Errorf("%s is a module: want no service", args[0])}
		}
		return driver.Artifact{Dir: filepath.Dir(at), Software: system.Software{Kind: system.Wasm, From: filepath.Base(at)}},
			driver.Spec{Instance: system.Instance(system.ServiceName(strings.TrimSuffix(filepath.Base(at), ".wasm")), 1)}, nil
	}
	e.dir = at
	res, err := e.load(ctx)
	if err != nil {
		return a, spec, err
	}
	var names []string
	var one *system.Service
	for i := range res.System.Services {
		if s := &res.System.Services[i]; s.Software.Kind == system.Wasm {
			if names = append(names, string(s.Name)); len(args) < 2 || args[1] == string(s.Name) {
				one = s
			}
		}
	}
	switch {
	case len(names) == 0:
		return a, spec, fmt.Errorf("%s: no service is a WebAssembly module (x-servent.wasm)", at)
	case one == nil:
		return a, spec, misuse{fmt.Errorf("want one of %s, have %q", strings.Join(names, ", "), args[1])}
	case len(names) > 1 && len(args) < 2:
		return a, spec, misuse{&system.Hint{Err: fmt.Errorf("there are %s: say which", strings.Join(names, ", ")), Next: "servent fn run " + args[0] + " " + names[0]}}
	}
	scratch, err := os.MkdirTemp("", "servent-fn-")
	if err != nil {
		return a, spec, err
	}
	defer os.RemoveAll(scratch)
	store := &blob.Store{Dir: scratch}
	alone := &system.System{Name: res.System.Name, Services: []system.Service{*one}}
	err = launch.Bundle(ctx, alone, store, func(s launch.Step) {
		if !s.Done {
			fmt.Fprintln(e.err, s.Text)
		}
	})
	if err != nil {
		return a, spec, err
	}
	from := one.Software.From
	if !filepath.IsAbs(from) {
		from = filepath.Join(one.Software.Dir, from)
	}
	spec = driver.Spec{Instance: system.Instance(one.Name, 1), Limits: one.Limits}
	for _, k := range slices.Sorted(maps.Keys(one.Environment)) {
		spec.Env = append(spec.Env, k+"="+one.Environment[k])
	}
	return driver.Artifact{Dir: filepath.Dir(from), Software: one.Software}, spec, nil
}

// change puts the words over what the file says.
func (o *fnOptions) change(s *driver.Spec) (err error) {
	for _, size := range []struct {
		flag, word string
		to         *int64
	}{{"memory", o.memory, &s.Limits.Memory}, {"output", o.output, &s.Limits.Output}} {
		if size.word == "" {
			continue
		}
		if *size.to, err = notation.Size(size.word); err != nil {
			return fmt.Errorf("--%s: %w", size.flag, err)
		}
	}
	if o.fuel != "" {
		if s.Limits.Fuel, err = notation.Amount(o.fuel); err != nil {
			return fmt.Errorf("--fuel: %w", err)
		}
	}
	if o.timeout < 0 || o.concurrency < 0 || o.concurrency > 1e6 {
		return errors.New("--timeout and --concurrency: want no negative or huge number")
	}
	if o.timeout > 0 {
		s.Limits.Timeout = o.timeout
	}
	if o.concurrency > 0 {
		s.Limits.Concurrency = o.concurrency
	}
	for _, pair := range o.env {
		if name, _, ok := strings.Cut(pair, "="); !ok || name == "" {
			return fmt.Errorf("--env: want NAME=VALUE, have %q", pair)
		}
		s.Env = append(s.Env, pair)
	}
	for _, pair := range o.reach {
		name, to, ok := strings.Cut(pair, "=")
		if _, _, err := net.SplitHostPort(to); !ok || name == "" || err != nil {
			return fmt.Errorf("--reach: want SERVICE=HOST:PORT, have %q", pair)
		}
		s.Ways = append(s.Ways, driver.Way{Name: name, To: to, Builtin: "kv"}) // who asks for a key knows that it is one
	}
	return nil
}

// fnRequest reads --call and what belongs to it.
func (e *env) fnRequest(o fnOptions) (*http.Request, error) {
	method, target, ok := strings.Cut(o.call, " ")
	if !ok || !strings.HasPrefix(target, "/") {
		return nil, fmt.Errorf("--call: want a method and a path, like \"GET /ada\"; have %q", o.call)
	}
	var body []byte
	var err error
	file, named := strings.CutPrefix(o.body, "@")
	switch {
	case o.body == "-":
		body, err = io.ReadAll(e.in)
	case named:
		body, err = os.ReadFile(file)
	default:
		body = []byte(o.body)
	}
	if err != nil {
		return nil, fmt.Errorf("--body: %w", err)
	}
	r, err := http.NewRequest(method, "http://localhost"+target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("--call: %w", err)
	}
	r.RequestURI, r.RemoteAddr = target, "127.0.0.1:0"
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("--header: want \"Name: value\", have %q", h)
		}
		r.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	return r, nil
}

// fnCall makes one call and prints its answer.
func (e *env) fnCall(r *http.Request, h http.Handler) (err error) {
	w := &recorder{header: http.Header{}, status: http.StatusOK}
	began, broken := time.Now(), false
	func() {
		defer func() {
			if what := recover(); what == http.ErrAbortHandler { //nolint:errorlint // as net/http has it
				broken = true
			} else if what != nil {
				panic(what)
			}
		}()
		h.ServeHTTP(w, r)
	}()
	took := time.Since(began)
	if r.Context().Err() != nil {
		return r.Context().Err()
	}
	if e.json {
		err = e.print(map[string]any{"status": w.status, "header": w.Header(), "body": w.body.String(), "seconds": took.Seconds(), "whole": !broken})
	} else if _, err = e.out.Write(w.body.Bytes()); err == nil {
		fmt.Fprintf(e.err, "%d %s in %v\n", w.status, http.StatusText(w.status), took.Round(time.Microsecond))
	}
	switch {
	case err != nil:
		return err
	case broken:
		return errors.New("the answer is not whole")
	case w.status >= 400:
		return fmt.Errorf("it answered %d %s", w.status, http.StatusText(w.status))
	}
	return nil
}

// recorder keeps an answer.
type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

// fnServe serves until ctx ends.
func (e *env) fnServe(ctx context.Context, port int, name system.InstanceID, h http.Handler) error {
	if port < 0 || port > 65535 {
		return misuse{fmt.Errorf("--port: want 0 to 65535, have %d", port)}
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return &system.Hint{Err: err, Next: "servent fn run --port 0 …"}
	}
	fmt.Fprintf(e.out, "http://%s  %s\n", ln.Addr(), name)
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		done <- server.Shutdown(grace)
	})
	err = server.Serve(ln)
	if stop() {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	if err := <-done; err != nil {
		_ = server.Close() // its calls end with their clients
	}
	return nil
}
