package address

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// piped joins a client to a server by pipes, so that all time-outs run on the bubble's clock.
func piped(t *testing.T, s *Server, c Client) *Client {
	ctx, cancel := context.WithCancel(t.Context())
	var open sync.WaitGroup
	t.Cleanup(func() { cancel(); open.Wait() })
	c.Dial = func(context.Context, string) (net.Conn, error) {
		if ctx.Err() != nil {
			return nil, errors.New("connection refused")
		}
		near, far := net.Pipe()
		open.Go(func() { s.converse(ctx, far, cancel) })
		return near, nil
	}
	return &c
}

// What a time-out does to the interface: the same server, whose first answer is late, under each semantics.
func TestTimeout(t *testing.T) {
	for _, tt := range []struct {
		semantics Semantics
		retries   int
		err       error
		took      time.Duration
		book      []string
	}{
		{Maybe, 0, ErrTimeout, time.Second, []string{"10.0.0.1"}},              // it was done, and the caller cannot know
		{AtLeastOnce, 0, nil, time.Second, []string{"10.0.0.1", "10.0.0.1"}},   // the second try did it again
		{AtMostOnce, 0, nil, 1500 * time.Millisecond, []string{"10.0.0.1"}},    // the second try got the first one's answer
		{Semantics(""), 0, nil, 1500 * time.Millisecond, []string{"10.0.0.1"}}, // the default
		{AtMostOnce, -1, ErrTimeout, time.Second, []string{"10.0.0.1"}},        // without a second try no better than maybe
	} {
		t.Run(fmt.Sprint(tt.semantics, tt.retries), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Delay: 1500 * time.Millisecond, Every: 2}
				c := piped(t, s, Client{Semantics: tt.semantics, Retries: tt.retries})
				began := time.Now()
				err := c.Insert(t.Context(), "ada", "10.0.0.1")
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("Insert() = %v, want %v", err, tt.err)
				}
				if got, want := Unknown(err), tt.err != nil; got != want {
					t.Errorf("Unknown(%v) = %v, want %v", err, got, want)
				}
				if took := time.Since(began); took != tt.took {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if diff := cmp.Diff(s.book["ada"], tt.book); diff != "" {
					t.Errorf("the book (- got, + want):\n%s", diff)
				}
			})
		})
	}
}

// A repeated delete says "missing" of a name that the same call has removed, unless the server knows it again.
func TestRepeatedDelete(t *testing.T) {
	for _, tt := range []struct {
		semantics Semantics
		err       error
	}{{AtLeastOnce, ErrMissing}, {AtMostOnce, nil}} {
		t.Run(string(tt.semantics), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &Server{Delay: 1500 * time.Millisecond, Every: 2, served: 2, book: map[string][]string{"ada": {"a", "b"}}}
				_, err := piped(t, s, Client{Semantics: tt.semantics}).Delete(t.Context(), "ada")
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Errorf("Delete() = %v, want %v", err, tt.err)
				}
			})
		})
	}
}

// "Not reached" of a later try does not take back that an earlier one may have been done.
func TestUnknownStaysUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := Client{Retries: 3, Dial: func(context.Context, string) (net.Conn, error) {
			if tries++; tries == 2 {
				near, far := net.Pipe()
				go func() { lines(far).Scan(); far.Close() }() // takes the request and dies
				return near, nil
			}
			return nil, errors.New("connection refused")
		}}
		err := c.Insert(t.Context(), "ada", "10.0.0.1")
		if !errors.Is(err, ErrLost) || !Unknown(err) || tries != 4 {
			t.Errorf("after %d tries: Insert() = %v, want %v after 4", tries, err, ErrLost)
		}
	})
}

// What the README promises of compose.slow.yaml, call by call.
func TestReadme(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Delay: 1500 * time.Millisecond, Every: 2}
		c := piped(t, s, Client{})
		as := func(semantics Semantics) *Client { return &Client{Semantics: semantics, Dial: c.Dial} }
		lookup := func(name string, want int) {
			t.Helper()
			if got, err := c.Lookup(t.Context(), name); err != nil || len(got) != want {
				t.Errorf("lookup %s = %q, %v, want %d addresses", name, got, err, want)
			}
		}
		if err := as(AtLeastOnce).Insert(t.Context(), "bob", "10.0.0.2:80"); err != nil {
			t.Error(err)
		}
		if err := as(AtMostOnce).Insert(t.Context(), "ada", "10.0.0.1:80"); err != nil {
			t.Error(err)
		}
		lookup("bob", 2)
		if err := as(Maybe).Insert(t.Context(), "eve", "10.0.0.5:80"); !errors.Is(err, ErrTimeout) {
			t.Errorf("insert eve: %v, want %v", err, ErrTimeout)
		}
		lookup("eve", 1)
		lookup("ada", 1)
	})
}

func TestUnreachableIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Client{Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("connection refused") }}
		began := time.Now()
		err := c.Insert(t.Context(), "ada", "10.0.0.1")
		if !errors.Is(err, ErrUnreachable) || Unknown(err) {
			t.Errorf("Insert() = %v, want %v", err, ErrUnreachable)
		}
		if got, want := time.Since(began), pause+2*pause; got != want {
			t.Errorf("three tries took %v, want %v", got, want)
		}
	})
}

func TestServerForgetsTheOldestReply(t *testing.T) {
	s := &Server{}
	insert := func(id string) { s.call(request{ID: id, Call: "insert", Name: id, Address: "a"}, time.Time{}) }
	for i := range remembered + 1 {
		insert(fmt.Sprint(i))
	}
	insert("1") // still known: not done again
	insert("0") // forgotten: taken for a new call
	if got, want := [2]int{len(s.book["1"]), len(s.book["0"])}, [2]int{1, 2}; got != want {
		t.Errorf("addresses of a remembered and a forgotten call = %v, want %v", got, want)
	}
	if len(s.known) != remembered || len(s.order) != remembered {
		t.Errorf("%d replies in %d places, want %d", len(s.known), len(s.order), remembered)
	}
}

func TestServerRefuses(t *testing.T) {
	s := &Server{}
	for i := range perName {
		s.call(request{Call: "insert", Name: "full", Address: fmt.Sprint(i)}, time.Time{})
	}
	for _, tt := range []struct {
		req  request
		want string
	}{
		{request{Call: "insert", Name: "", Address: "a"}, "a call needs a name"},
		{request{Call: "insert", Name: "ada"}, "insert needs an address"},
		{request{Call: "insert", Name: "full", Address: "a"}, "no room: at most 100000 names with 16 addresses each"},
		{request{Call: "rename", Name: "ada"}, `no call "rename"; there are insert, delete, lookup, stop`},
	} {
		if got := s.call(tt.req, time.Time{}); got.Error != "refused" || got.Detail != tt.want {
			t.Errorf("%+v = %s %q, want refused %q", tt.req, got.Error, got.Detail, tt.want)
		}
	}
}

// The whole exercise over TCP, by the command line.
func TestCommands(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := NewServer(nil, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(t.Context(), ln) }()
	for _, tt := range []struct {
		args string
		out  string
		err  error
	}{
		{"lookup ada", "", ErrMissing},
		{"insert ada 10.0.0.1:80", "", nil},
		{"--semantics at-least-once insert ada 10.0.0.2:80", "", nil},
		{"lookup ada", "10.0.0.1:80\n10.0.0.2:80\n", nil},
		{"delete ada", "10.0.0.1:80\n10.0.0.2:80\n", nil},
		{"delete ada", "", ErrMissing},
		{"insert ada", "", ErrUsage},
		{"--semantics exactly-once lookup ada", "", ErrUsage},
		{"--timeout soon lookup ada", "", ErrUsage},
		{"", "", ErrUsage},
		{"stop", "", nil},
		{"--retries -1 lookup ada", "", ErrUnreachable},
	} {
		var out bytes.Buffer
		call := func() error {
			return Call(t.Context(), ln.Addr().String(), append([]string{"--timeout", "10s"}, strings.Fields(tt.args)...), &out, t.Output())
		}
		err := call()
		for n := 0; tt.err == ErrUnreachable && !errors.Is(err, tt.err) && n < 5; n++ {
			err = call() // the port is free, and another test's server may have it for a moment
		}
		if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) || out.String() != tt.out {
			t.Errorf("%s = %q, %v, want %q, %v", tt.args, out.String(), err, tt.out, tt.err)
		}
		if tt.args == "stop" {
			if err := <-done; err != nil {
				t.Fatalf("Serve() = %v, want nil after stop", err)
			}
		}
	}
}

func FuzzServer(f *testing.F) {
	for _, line := range []string{`{"id":"1","call":"lookup","name":"ada"}`, `{"call":7}`, "null", "", strings.Repeat("x", 5000), "{}\n{}\n"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		conn := &tape{in: strings.NewReader(sent)}
		new(Server).converse(t.Context(), conn, func() {})
		asked := 0
		for in := lines(strings.NewReader(sent)); in.Scan(); {
			asked++
		}
		answered := strings.SplitAfter(conn.out.String(), "\n")
		if got := len(answered) - 1; got != asked && !strings.Contains(sent, "stop") {
			t.Errorf("%d lines got %d answers", asked, got)
		}
		for _, line := range answered[:len(answered)-1] {
			if err := json.Unmarshal([]byte(line), &reply{}); err != nil {
				t.Errorf("answer %q: %v", line, err)
			}
		}
	})
}

// tape is a connection whose client has said everything beforehand.
type tape struct {
	net.Conn
	in  *strings.Reader
	out bytes.Buffer
}

func (t *tape) Read(b []byte) (int, error)  { return t.in.Read(b) }
func (t *tape) Write(b []byte) (int, error) { return t.out.Write(b) }
func (t *tape) Close() error                { return nil }
