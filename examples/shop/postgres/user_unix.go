//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// enter opens the data folder and returns its path as PostgreSQL shall be given it. As root it gives
// the folder to user postgres or nobody and becomes that user. Folders above may be root's alone and out
// of that user's reach; on Linux the open folder is reached all the same, as /proc/self/fd/N.
func enter(folder string) (*os.Root, string, error) {
	root, err := os.OpenRoot(folder)
	if err != nil || os.Geteuid() != 0 {
		return root, folder, err
	}
	who, err := user.Lookup("postgres")
	if err != nil {
		if who, err = user.Lookup("nobody"); err != nil {
			return nil, "", fmt.Errorf("PostgreSQL refuses to run as root, and there is no user postgres or nobody: %w", err)
		}
	}
	uid, uidErr := strconv.Atoi(who.Uid)
	gid, gidErr := strconv.Atoi(who.Gid)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return nil, "", fmt.Errorf("user %s: %w", who.Username, err)
	}
	err = filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	})
	if err != nil {
		return nil, "", fmt.Errorf("give the database to user %s: %w", who.Username, err)
	}
	path := folder
	if runtime.GOOS == "linux" {
		fd, err := syscall.Open(folder, syscall.O_RDONLY|syscall.O_DIRECTORY, 0) // stays open in what we start
		if err != nil {
			return nil, "", fmt.Errorf("open %s: %w", folder, err)
		}
		path = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	if err := os.Chdir("/"); err != nil { // the working folder is out of reach as well
		return nil, "", err
	}
	if err := errors.Join(syscall.Setgroups([]int{gid}), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return nil, "", fmt.Errorf("become user %s, for PostgreSQL refuses to run as root: %w", who.Username, err)
	}
	return root, path, nil
}

// settle waits until the disk has what was renamed in folder.
func settle(folder *os.Root) error {
	dir, err := folder.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// become replaces this process by the server, so that signals reach it.
func become(server, cluster string) error {
	err := syscall.Exec(server, append([]string{"postgres"}, arguments(cluster)...), os.Environ())
	return fmt.Errorf("start %s: %w", server, err)
}
