package main

import (
	"context"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestMain lets the test run the program itself, as a process that it can kill.
func TestMain(m *testing.M) {
	if os.Getenv("SHOP_TEST_SERVES") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs the program on a folder and connects to it when it answers.
func start(t *testing.T, folder string) (db *pgx.Conn, kill func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // PostgreSQL cannot choose a port itself
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SHOP_TEST_SERVES=1", "POSTGRES_PASSWORD=it's", "SERVENT_DATA="+folder, "HOST="+host, "PORT="+port)
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); <-ended })
	t.Cleanup(kill)
	at := url.URL{Scheme: "postgres", User: url.UserPassword("shop", "it's"), Host: net.JoinHostPort(host, port), Path: "postgres", RawQuery: "sslmode=disable"}
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		db, err := pgx.Connect(ctx, at.String())
		if err == nil {
			t.Cleanup(func() { db.Close(context.Background()) })
			return db, kill
		}
		select {
		case <-tick.C:
		case end := <-ended:
			ended <- end
			t.Fatalf("the server ended: %v", end)
		case <-ctx.Done():
			t.Fatalf("no connection: %v", err)
		}
	}
}

// A database that was left half made is made anew; a whole one is kept over kill -9.
func TestDatabaseIsWholeOrNone(t *testing.T) {
	if testing.Short() {
		t.Skip("runs PostgreSQL")
	}
	if _, err := find("postgres"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o700); err != nil { // for root it is out of reach of the user that PostgreSQL runs as
		t.Fatal(err)
	}
	data := filepath.Join(folder, "data")
	if err := os.MkdirAll(filepath.Join(data, half, "junk"), 0o700); err != nil {
		t.Fatal(err)
	}
	db, kill := start(t, data)
	if _, err := db.Exec(t.Context(), "CREATE TABLE kept AS SELECT 42 AS n"); err != nil {
		t.Fatal(err)
	}
	kill()
	if _, err := os.Stat(filepath.Join(data, half)); err == nil {
		t.Errorf("%s is still there", half)
	}
	db, _ = start(t, data)
	var n int
	if err := db.QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 42 {
		t.Errorf("after kill -9: %d, %v, want 42", n, err)
	}
}

func TestPlainWords(t *testing.T) {
	t.Setenv("SERVENT_DATA", "")
	if err := run(); err == nil {
		t.Error("run() without a folder = nil, want an error")
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := find("no-such-program"); err == nil {
		t.Error("find() of a missing program = nil, want an error")
	}
}
