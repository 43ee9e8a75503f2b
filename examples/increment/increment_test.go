package increment

import (
	"context"
	"errors"
	"io"
	"math/big"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
)

func FuzzAnswer(f *testing.F) {
	for _, line := range []string{"41", "-1", "9223372036854775806", "9223372036854775807", "+1", "1_0", "", "\r", "7\r"} {
		f.Add(line)
	}
	number := regexp.MustCompile(`^-?[0-9]+$`)
	f.Fuzz(func(t *testing.T, line string) { // against a twin that knows no bound
		want := "error"
		digits := strings.TrimSuffix(line, "\r")
		if n, ok := new(big.Int).SetString(digits, 10); ok && number.MatchString(digits) {
			if next := n.Add(n, big.NewInt(1)); n.IsInt64() && next.Cmp(big.NewInt(-1<<63)) > 0 {
				want = next.String()
			}
		}
		got, _, _ := strings.Cut(Answer(line), " ")
		if got != want {
			t.Errorf("Answer(%q) = %q, want %q", line, got, want)
		}
	})
}

// A listener that hands out pipes, so that the bubble's clock decides when all wait.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestServeClosesIdleClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ln, done := make(pipes), make(chan error, 1)
		go func() { done <- Serve(ctx, ln) }()
		client, server := net.Pipe()
		ln <- server
		synctest.Wait() // the server waits for a line
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v, want nil", err)
		}
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("idle client: Read() = %v, want EOF", err)
		}
	})
}

func TestServeFailsWithItsListener(t *testing.T) {
	ln := make(pipes)
	close(ln)
	if err := Serve(t.Context(), stuck{ln}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve() = %v, want %v", err, net.ErrClosed)
	}
}

// stuck is a listener whose Close does nothing.
type stuck struct{ net.Listener }

func (stuck) Close() error { return nil }
