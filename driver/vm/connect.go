package vm

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

// toldPort is where a guest asks [driver.Gate] for its variables: what starts warm was booted as nobody.
const toldPort = "80"

// Connect joins a guest's connection, which QEMU hands to a program of its own as standard input and output, to an address,
// or answers its HTTP requests with a file.
func Connect(ctx context.Context, to string, in io.Reader, out io.Writer) error {
	if filepath.IsAbs(to) {
		return tell(to, in, out)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, in) // the other direction tells
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(out, conn)
	return err
}

func tell(path string, in io.Reader, out io.Writer) error {
	for r := bufio.NewReader(in); ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		res := http.Response{StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(b)), Request: req,
			Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Cache-Control": {"no-store"}}, Body: io.NopCloser(bytes.NewReader(b))}
		if err := res.Write(out); err != nil {
			return fmt.Errorf("answer the guest: %w", err)
		}
	}
}
