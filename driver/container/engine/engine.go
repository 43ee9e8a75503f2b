// Package engine speaks to a container engine that runs already, Docker or podman, by the Docker Engine API over its
// local socket (docs.docker.com/reference/api/engine/version/v1.41): the dozen calls that one instance needs. It knows
// nothing of services. Start at [Find].
package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	api        = "/v1.41" // Docker 20.10 and newer; podman 4.0 answers as it
	mostAnswer = 8 << 20  // bytes of one answer that is no stream
	mostLine   = 1 << 20  // of one piece of an instance's output
)

// ErrNone: no engine answers on this machine.
var ErrNone = errors.New("no Docker Engine or podman answers here")

// Client is one engine.
type Client struct {
	socket string
	http   *http.Client
}

// At returns the engine behind a socket. It asks nothing.
func At(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket, &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 8,
		IdleConnTimeout: 30 * time.Second}}}
}

// Socket is where the engine answers.
func (c *Client) Socket() string { return c.socket }

// Find returns the first engine that answers: DOCKER_HOST alone when it is set, else Docker's socket, podman's of this
// user, podman's of root. The error, which wraps [ErrNone], says what each of them said.
func Find(ctx context.Context) (*Client, Version, error) {
	var no error
	for _, socket := range sockets() {
		c := At(socket)
		v, err := c.Version(ctx)
		if err == nil {
			return c, v, nil
		}
		c.Close()
		if !errors.Is(err, os.ErrNotExist) {
			no = errors.Join(no, fmt.Errorf("%s: %w", socket, err))
		}
	}
	if no == nil {
		return nil, Version{}, ErrNone
	}
	return nil, Version{}, fmt.Errorf("%w: %w", ErrNone, no)
}

func sockets() []string {
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		if path, ok := strings.CutPrefix(host, "unix://"); ok {
			return []string{path}
		}
		return nil // an engine of another machine cannot give an instance ways to this node
	}
	all := []string{"/var/run/docker.sock"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		all = append(all, filepath.Join(dir, "podman/podman.sock"))
	}
	return append(all, "/run/podman/podman.sock")
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version says who the engine is.
type Version struct {
	Name    string // docker, podman
	Version string // 20.10.24
}

// Version asks the engine who it is.
func (c *Client) Version(ctx context.Context) (Version, error) {
	var said struct {
		Version    string
		Os         string
		Components []struct{ Name, Version string }
	}
	if err := c.ask(ctx, "GET", "/version", nil, &said); err != nil {
		return Version{}, err
	}
	if said.Os != "" && said.Os != "linux" {
		return Version{}, fmt.Errorf("it runs containers of %s, want linux", said.Os)
	}
	v := Version{"docker", said.Version}
	for _, one := range said.Components {
		if strings.HasPrefix(one.Name, "Podman") {
			v.Name = "podman"
		}
	}
	return v, nil
}

// Image is the configuration of an image that the engine has; ok is false when it has none of that name.
func (c *Client) Image(ctx context.Context, name string) (cfg v1.Config, ok bool, err error) {
	var said struct{ Config v1.Config }
	err = c.ask(ctx, "GET", "/images/"+url.PathEscape(name)+"/json", nil, &said)
	if refused, is := errors.AsType[*Refusal](err); is && refused.Status == http.StatusNotFound {
		return cfg, false, nil
	}
	return said.Config, err == nil, err
}

// Load gives the engine an image, as docker save writes it. It is in use under the name in the archive.
func (c *Client) Load(ctx context.Context, archive io.Reader) error {
	res, err := c.do(ctx, "POST", "/images/load?quiet=1", archive, "application/x-tar")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	for d := json.NewDecoder(io.LimitReader(res.Body, mostAnswer)); ; {
		var line struct{ Error string }
		switch err := d.Decode(&line); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("load an image: %w", err)
		case line.Error != "":
			return &Refusal{http.StatusInternalServerError, line.Error}
		}
	}
}

// Create makes a container, which does not run yet.
func (c *Client) Create(ctx context.Context, name string, like Container) (id string, err error) {
	var said struct{ ID string }
	err = c.ask(ctx, "POST", "/containers/create?name="+url.QueryEscape(name), like, &said)
	return said.ID, err
}

// Container is what a container is made from: the API's words (ContainerCreate), as far as they are used.
type Container struct {
	Image      string
	Hostname   string   `json:",omitempty"`
	User       string   `json:",omitempty"`
	WorkingDir string   `json:",omitempty"`
	Entrypoint []string `json:",omitempty"`
	Cmd        []string
	Env        []string
	Labels     map[string]string
	StopSignal string `json:",omitempty"`
	HostConfig Host
	// Healthcheck {"NONE"}: the node checks, not the engine.
	Healthcheck struct{ Test []string }
}

// Host is the part of a container that is the machine's.
type Host struct {
	NetworkMode    string
	Mounts         []Mount `json:",omitempty"`
	Tmpfs          map[string]string
	Sysctls        map[string]string
	CapAdd         []string
	CapDrop        []string
	SecurityOpt    []string
	ReadonlyRootfs bool
	Memory         int64    // bytes; 0: no limit
	MemorySwap     int64    // memory and swap together
	NanoCpus       int64    // 10⁻⁹ processors
	PidsLimit      *int64   `json:",omitempty"`
	Ulimits        []Ulimit `json:",omitempty"`
	LogConfig      struct {
		Type   string            `json:",omitempty"`
		Config map[string]string `json:",omitempty"`
	}
}

// Mount is a folder or file of the machine in a container.
type Mount struct {
	Type, Source, Target string
	ReadOnly             bool
}

// Ulimit bounds a process: nofile.
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Start runs a container.
func (c *Client) Start(ctx context.Context, id string) error {
	return c.ask(ctx, "POST", "/containers/"+id+"/start", nil, nil)
}

// Kill sends a signal to a container's first process.
func (c *Client) Kill(ctx context.Context, id, signal string) error {
	return c.ask(ctx, "POST", "/containers/"+id+"/kill?signal="+url.QueryEscape(signal), nil, nil)
}

// Remove ends a container and takes all of it away. It is no error when it is gone.
func (c *Client) Remove(ctx context.Context, id string) error {
	err := c.ask(ctx, "DELETE", "/containers/"+id+"?force=1&v=1", nil, nil)
	if refused, ok := errors.AsType[*Refusal](err); ok && (refused.Status == http.StatusNotFound || refused.Status == http.StatusConflict && strings.Contains(refused.Words, "already in progress")) {
		return nil
	}
	return err
}

// Wait returns when a container has ended.
func (c *Client) Wait(ctx context.Context, id string) error {
	return c.ask(ctx, "POST", "/containers/"+id+"/wait", nil, nil)
}

// State is how a container is.
type State struct {
	Running   bool
	OOMKilled bool
	ExitCode  int
	Error     string
}

// State asks how a container is.
func (c *Client) State(ctx context.Context, id string) (State, error) {
	var said struct{ State State }
	err := c.ask(ctx, "GET", "/containers/"+id+"/json", nil, &said)
	return said.State, err
}

// List returns the containers with a label, running or not: name=value.
func (c *Client) List(ctx context.Context, label string) ([]Listed, error) {
	filters, err := json.Marshal(map[string][]string{"label": {label}})
	if err != nil {
		return nil, err
	}
	var all []Listed
	err = c.ask(ctx, "GET", "/containers/json?all=1&filters="+url.QueryEscape(string(filters)), nil, &all)
	return all, err
}

// Listed is one of a list.
type Listed struct {
	ID     string `json:"Id"`
	Labels map[string]string
}

// Logs copies what a container has said and says, until it has ended or ctx does.
func (c *Client) Logs(ctx context.Context, id string, stdout, stderr io.Writer) error {
	res, err := c.do(ctx, "GET", "/containers/"+id+"/logs?follow=1&stdout=1&stderr=1", nil, "")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return split(res.Body, stdout, stderr)
}

// split parts the two outputs of a stream (API, ContainerAttach: one byte which, three of zero, four of length).
func split(r io.Reader, stdout, stderr io.Writer) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("output of a container: %w", err)
		}
		n := int64(binary.BigEndian.Uint32(head[4:]))
		if head[0] > 2 || head[1]|head[2]|head[3] != 0 || n > mostLine {
			return fmt.Errorf("output of a container: not understood: % x", head)
		}
		to := stdout
		if head[0] == 2 {
			to = stderr
		}
		if to == nil {
			to = io.Discard
		}
		if _, err := io.CopyN(to, r, n); err != nil {
			return fmt.Errorf("output of a container: %w", err)
		}
	}
}

// Stats of a container since it started.
type Stats struct {
	CPU    time.Duration
	Memory int64 // bytes in use, without files that could be dropped
	Pids   int
}

// Stats measures a container.
func (c *Client) Stats(ctx context.Context, id string) (Stats, error) {
	var said struct {
		CPU struct {
			Usage struct {
				Total int64 `json:"total_usage"`
			} `json:"cpu_usage"`
		} `json:"cpu_stats"`
		Memory struct {
			Usage int64            `json:"usage"`
			Stats map[string]int64 `json:"stats"`
		} `json:"memory_stats"`
		Pids struct {
			Current int `json:"current"`
		} `json:"pids_stats"`
	}
	if err := c.ask(ctx, "GET", "/containers/"+id+"/stats?stream=false&one-shot=true", nil, &said); err != nil {
		return Stats{}, err
	}
	drop := said.Memory.Stats["inactive_file"] // version 2 of cgroups
	if n, ok := said.Memory.Stats["total_inactive_file"]; ok {
		drop = n
	}
	return Stats{time.Duration(said.CPU.Usage.Total), max(0, said.Memory.Usage-drop), said.Pids.Current}, nil
}

// Exec runs a command in a container and returns how it ended.
func (c *Client) Exec(ctx context.Context, id string, args []string, out io.Writer) (code int, err error) {
	var made struct{ ID string }
	create := struct {
		Cmd                        []string
		AttachStdout, AttachStderr bool
	}{args, true, true}
	if err := c.ask(ctx, "POST", "/containers/"+id+"/exec", create, &made); err != nil {
		return 0, err
	}
	res, err := c.do(ctx, "POST", "/exec/"+made.ID+"/start", bytes.NewReader([]byte(`{"Detach":false,"Tty":false}`)), "application/json")
	if err != nil {
		return 0, err
	}
	err = split(res.Body, out, out)
	res.Body.Close()
	if err != nil {
		return 0, err
	}
	var said struct {
		ExitCode int
		Running  bool
	}
	for range 100 { // podman ends the stream a moment before it knows the code
		if err := c.ask(ctx, "GET", "/exec/"+made.ID+"/json", nil, &said); err != nil || !said.Running {
			return said.ExitCode, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return 0, errors.New("the command's output has ended and the command has not")
}

// Refusal is an engine's no.
type Refusal struct {
	Status int // of HTTP
	Words  string
}

func (r *Refusal) Error() string { return r.Words + " (" + strconv.Itoa(r.Status) + ")" }

// ask sends one value and reads one; nil: none.
func (c *Client) ask(ctx context.Context, method, path string, send, want any) error {
	var body io.Reader
	kind := ""
	if send != nil {
		b, err := json.Marshal(send)
		if err != nil {
			return err
		}
		body, kind = bytes.NewReader(b), "application/json"
	}
	res, err := c.do(ctx, method, path, body, kind)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	if err != nil || want == nil {
		return err
	}
	if err := json.Unmarshal(b, want); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, kind string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://engine"+api+path, body)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	res, err := c.http.Do(r)
	if err != nil {
		if op, ok := errors.AsType[*url.Error](err); ok {
			err = op.Err // without the address, which is a made one
		}
		return nil, err
	}
	if res.StatusCode < 400 {
		return res, nil
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10)) // what there is of it
	var said struct{ Message, Cause string }
	words := strings.TrimSpace(string(b))
	if json.Unmarshal(b, &said) == nil && said.Message != "" {
		words = said.Message
	}
	return nil, &Refusal{res.StatusCode, words}
}
