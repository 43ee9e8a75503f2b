package process

import "os/exec"

func detach(*exec.Cmd) {}

func playMore(string, []string) bool { return false }
