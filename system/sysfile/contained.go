package sysfile

import (
	"path/filepath"
	"strings"

	"servent/system"
)

// Folders of the node that give it away to a container that has them, and files below them.
var betraying = []string{"/", "/proc", "/sys", "/dev", "/boot", "/etc", "/root", "/run", "/var/run", "/var/lib/docker", "/var/lib/containers"}

// contained refuses what would give a container its node. What a container merely does not get is a note.
func (c checker) contained() {
	if c.s.Software.Container == nil {
		return
	}
	said := c.project.Services[string(c.s.Name)]
	for key, list := range map[string][]string{"cap_add": said.CapAdd, "cap_drop": said.CapDrop} {
		for i, word := range list {
			if _, err := system.Capability(word, key == "cap_add"); err != nil {
				c.bad(c.at.key(key).item(i), "%s", err)
			}
		}
	}
	if said.Privileged {
		c.bad(c.at.key("privileged"), "a privileged container is root of its node; say what it needs by cap_add, or run the program by x-servent.process")
	}
	if len(said.Devices) > 0 {
		c.bad(c.at.key("devices"), "no device of a node is given to a container; run the program by x-servent.process")
	}
	for _, ns := range []struct{ key, is, own string }{
		{"network_mode", said.NetworkMode, "network; others reach it by its ports"},
		{"pid", said.Pid, "processes"},
		{"ipc", said.Ipc, "memory"},
		{"uts", said.Uts, "name; say it by hostname"},
		{"userns_mode", said.UserNSMode, "bounds; say who runs it by user"},
		{"cgroup", said.Cgroup, "limits"},
	} {
		if ns.is == "host" {
			c.bad(c.at.key(ns.key), "a container does not share its node's: it has its own %s; take the line out", ns.own)
		}
	}
	for i, word := range said.SecurityOpt {
		key, value, _ := strings.Cut(strings.ReplaceAll(word, "=", ":"), ":")
		if value == "unconfined" || key == "label" && value == "disable" || key == "systempaths" || key == "no-new-privileges" && value == "false" {
			c.bad(c.at.key("security_opt").item(i), "%s takes a bound of the container away; take the line out", word)
		}
	}
	for i, v := range said.Volumes {
		if v.Type != "bind" {
			continue
		}
		from := filepath.Clean(v.Source)
		for _, folder := range betraying {
			socket := strings.HasSuffix(from, ".sock") && (strings.HasPrefix(from, "/run/") || strings.HasPrefix(from, "/var/run/"))
			below := (folder == "/proc" || folder == "/sys" || folder == "/dev") && strings.HasPrefix(from, folder+"/")
			if from == folder || socket || below {
				c.bad(c.at.key("volumes").item(i), "%s would give the node away to a container; mount a folder of its own, or run the program by x-servent.process", from)
				break
			}
		}
	}
}
