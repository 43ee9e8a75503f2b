package main

import (
	"os"
	"os/exec"
)

// enter opens the data folder. On Windows PostgreSQL gives up its administrator's rights by itself.
func enter(folder string) (*os.Root, string, error) {
	root, err := os.OpenRoot(folder)
	return root, folder, err
}

// settle has nothing to do: NTFS writes renames to its log.
func settle(*os.Root) error { return nil }

// become runs the server as a child, which ends with the instance.
func become(server, cluster string) error {
	cmd := exec.Command(server, arguments(cluster)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
