// Command postgres runs the machine's own PostgreSQL as the shop's data tier: it makes the database in
// $SERVENT_DATA when there is none, and becomes the server on $HOST:$PORT. PostgreSQL refuses to run as
// root; started by root, it becomes user postgres or nobody first.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	data, password := os.Getenv("SERVENT_DATA"), os.Getenv("POSTGRES_PASSWORD")
	if data == "" || password == "" {
		return errors.New("SERVENT_DATA or POSTGRES_PASSWORD is empty: want the database's folder and a password")
	}
	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	initdb, err := find("initdb")
	if err != nil {
		return err
	}
	server, err := find("postgres")
	if err != nil {
		return err
	}
	root, path, err := enter(data)
	if err != nil {
		return err
	}
	defer root.Close()
	cluster := filepath.Join(path, made)
	if _, err := root.Stat(made); errors.Is(err, fs.ErrNotExist) {
		log.Printf("making a database in %s", filepath.Join(data, made))
		if err := create(root, path, initdb, server, password); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return become(server, cluster)
}

const made, half = "postgres", "postgres.new" // folders of a whole cluster, and of one in the making

// create makes a cluster beside its place and moves it there when it is whole: a crash leaves none or
// a whole one.
func create(root *os.Root, path, initdb, server, password string) error {
	if err := root.RemoveAll(half); err != nil {
		return fmt.Errorf("remove a database that was left half made: %w", err)
	}
	if err := root.Mkdir(half, 0o700); err != nil {
		return err
	}
	cluster := filepath.Join(path, half)
	// The socket in a folder is switched off below, so only the password opens the door.
	if err := tool(nil, initdb, "-D", cluster, "-U", "shop", "-E", "UTF8", "--no-locale", "--auth-local=trust", "--auth-host=scram-sha-256"); err != nil {
		return err
	}
	alter := "ALTER ROLE shop PASSWORD '" + strings.ReplaceAll(password, "'", "''") + "'\n"
	if err := tool(strings.NewReader(alter), server, "--single", "-D", cluster, "postgres"); err != nil {
		return err
	}
	access, err := root.OpenFile(filepath.Join(half, "pg_hba.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = access.WriteString("host all all all scram-sha-256 # the doors of other nodes\n")
	if err := errors.Join(err, access.Sync(), access.Close()); err != nil {
		return err
	}
	if err := root.Rename(half, made); err != nil {
		return err
	}
	return settle(root)
}

// arguments are those of the server: TCP alone, and the instance's name as that of the cluster.
func arguments(cluster string) []string {
	return []string{"-D", cluster, "-h", os.Getenv("HOST"), "-p", os.Getenv("PORT"),
		"-c", "unix_socket_directories=", "-c", "cluster_name=" + os.Getenv("SERVENT_INSTANCE") + " on " + os.Getenv("SERVENT_NODE")}
}

// find looks for a program of PostgreSQL in PATH, then where Linux distributions and macOS keep it, newest version first.
func find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin/", "/usr/pgsql-*/bin/", "/opt/homebrew/opt/postgresql*/bin/", "/usr/local/opt/postgresql*/bin/"} {
		found, err := filepath.Glob(pattern + program)
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return slices.Max(found), nil
		}
	}
	return "", fmt.Errorf("%s is neither in PATH nor where PostgreSQL is usually installed; install PostgreSQL, or leave compose.postgres.yaml away to use SQLite", program)
}

// tool runs a program to its end and says what it said when it fails.
func tool(in io.Reader, program string, args ...string) error {
	var said bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
