package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const (
	lineMost = 1 << 20          // bytes of one message of QEMU
	qmpFor   = 10 * time.Second // that one command may take
)

// monitor is a connection to QEMU's machine protocol: one JSON object a line, events between answers (QEMU's
// docs/interop/qmp-spec). It is used by one goroutine.
type monitor struct {
	conn net.Conn
	in   *bufio.Scanner
}

// dial connects to a machine that may just be starting.
func dial(ctx context.Context, path string) (*monitor, error) {
	ctx, cancel := context.WithTimeout(ctx, qmpFor)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			m := newMonitor(conn)
			if err = m.greet(ctx); err == nil {
				return m, nil
			}
			conn.Close()
			return nil, fmt.Errorf("QEMU's monitor: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("QEMU's monitor: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func newMonitor(conn net.Conn) *monitor {
	m := &monitor{conn, bufio.NewScanner(conn)}
	m.in.Buffer(nil, lineMost)
	return m
}

func (m *monitor) greet(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok {
		_ = m.conn.SetDeadline(end) // a unix socket has one
	}
	line, err := m.line()
	if err != nil {
		return err
	}
	var hello struct {
		QMP json.RawMessage `json:"QMP"`
	}
	if err := json.Unmarshal(line, &hello); err != nil || hello.QMP == nil {
		return fmt.Errorf("want a greeting, have %.60q", line)
	}
	return m.do(ctx, "qmp_capabilities", nil, nil)
}

func (m *monitor) line() ([]byte, error) {
	if !m.in.Scan() {
		if err := m.in.Err(); err != nil {
			return nil, err
		}
		return nil, io.ErrUnexpectedEOF
	}
	return m.in.Bytes(), nil
}

// do runs a command and reads its answer into out, if that is not nil.
func (m *monitor) do(ctx context.Context, command string, arguments, out any) error {
	end := time.Now().Add(qmpFor)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	_ = m.conn.SetDeadline(end) // a unix socket has one
	b, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if arguments == nil {
		b, err = json.Marshal(map[string]any{"execute": command})
	}
	if err != nil {
		return err
	}
	if _, err := m.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	for {
		line, err := m.line()
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		var answer struct {
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		switch err := json.Unmarshal(line, &answer); {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case answer.Event != "":
			continue
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", command, answer.Error.Desc)
		case answer.Return == nil:
			return fmt.Errorf("%s: neither answer nor error: %.60q", command, line)
		case out == nil:
			return nil
		}
		return json.Unmarshal(answer.Return, out)
	}
}

// status is what QEMU calls the machine's state: running, paused, inmigrate, …
func (m *monitor) status(ctx context.Context) (string, error) {
	var out struct {
		Status string `json:"status"`
	}
	return out.Status, m.do(ctx, "query-status", nil, &out)
}

// human runs a command of the monitor for people, and returns what it prints.
func (m *monitor) human(ctx context.Context, line string) (out string, err error) {
	return out, m.do(ctx, "human-monitor-command", map[string]string{"command-line": line}, &out)
}

// save stops the machine and writes its state to a file. path has no quotes.
func (m *monitor) save(ctx context.Context, path string) error {
	if err := m.do(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := m.do(ctx, "migrate", map[string]string{"uri": "exec:cat > '" + path + "'"}, nil); err != nil {
		return err
	}
	for {
		var out struct {
			Status string `json:"status"`
			Why    string `json:"error-desc"`
		}
		switch err := m.do(ctx, "query-migrate", nil, &out); {
		case err != nil:
			return err
		case out.Status == "completed":
			return nil
		case out.Status == "failed" || out.Status == "cancelled":
			return errors.New("save the machine: " + out.Status + " " + out.Why)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (m *monitor) close() { _ = m.conn.Close() }
