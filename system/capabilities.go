package system

import (
	"fmt"
	"slices"
	"strings"
)

// What a container's root may do unless the file says otherwise, as Docker has it (moby, oci/caps/defaults.go).
var defaultCapabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL",
	"CAP_AUDIT_WRITE"}

// What the file may add: these act on the container's own network, processes and files (capabilities(7)).
var addedCapabilities = []string{"CAP_NET_ADMIN", "CAP_NET_BROADCAST", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_LEASE",
	"CAP_LINUX_IMMUTABLE", "CAP_SYS_NICE"}

// What the file may not add, and why: these act on the machine, which no namespace of a container divides
// (capabilities(7)).
var refusedCapabilities = map[string]string{
	"CAP_SYS_ADMIN":          "it mounts and makes namespaces, which leads out of a container",
	"CAP_SYS_MODULE":         "it loads code into the machine's kernel",
	"CAP_SYS_RAWIO":          "it reaches the machine's memory and ports",
	"CAP_SYS_BOOT":           "it stops the machine",
	"CAP_SYS_TIME":           "it sets the machine's clock",
	"CAP_SYS_RESOURCE":       "it lifts the limits of the file",
	"CAP_SYS_PACCT":          "it writes the machine's accounts",
	"CAP_SYS_TTY_CONFIG":     "it acts on the machine's terminals",
	"CAP_SYS_PTRACE":         "it reaches into the health checks that the node starts in the container",
	"CAP_SYSLOG":             "it reads the machine's kernel log",
	"CAP_DAC_READ_SEARCH":    "it opens files of the machine by their handles",
	"CAP_MAC_ADMIN":          "it changes the machine's access rules",
	"CAP_MAC_OVERRIDE":       "it passes the machine's access rules",
	"CAP_AUDIT_CONTROL":      "it changes the machine's audit",
	"CAP_AUDIT_READ":         "it reads the machine's audit",
	"CAP_BPF":                "it loads programs into the machine's kernel",
	"CAP_PERFMON":            "it watches the machine's kernel",
	"CAP_CHECKPOINT_RESTORE": "it reads and sets the state of processes",
	"CAP_WAKE_ALARM":         "it wakes the machine",
	"CAP_BLOCK_SUSPEND":      "it keeps the machine awake",
	"ALL":                    "it gives the machine away",
}

// Capability reads a word of cap_add (add) or cap_drop, with or without CAP_, in any case, and returns the kernel's
// name or ALL. The error says what is wanted.
func Capability(word string, add bool) (string, error) {
	name := strings.ToUpper(word)
	if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
		name = "CAP_" + name
	}
	why, refused := refusedCapabilities[name]
	switch {
	case refused && add:
		return "", fmt.Errorf("%s is not given to a container: %s; these can be: %s", word, why, capabilityWords())
	case refused, slices.Contains(defaultCapabilities, name), slices.Contains(addedCapabilities, name):
		return name, nil
	}
	return "", fmt.Errorf("%q is no capability of Linux; there are, among others: %s", word, capabilityWords())
}

func capabilityWords() string {
	return strings.ReplaceAll(strings.Join(addedCapabilities, ", "), "CAP_", "")
}

// Capabilities are those of an instance: the default ones without what is dropped, and with what is added. As with
// Docker, dropping ALL leaves what is added, and what is added and dropped is dropped unless it is by ALL.
func (c *Container) Capabilities() ([]string, error) {
	have := defaultCapabilities
	if c == nil {
		return slices.Clone(have), nil
	}
	var add, drop []string
	for _, list := range []struct {
		to   *[]string
		from []string
	}{{&add, c.CapAdd}, {&drop, c.CapDrop}} {
		for _, word := range list.from {
			name, err := Capability(word, list.to == &add)
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, name)
		}
	}
	if slices.Contains(drop, "ALL") {
		have, drop = nil, nil
	}
	all := slices.Concat(have, add)
	all = slices.DeleteFunc(all, func(name string) bool { return slices.Contains(drop, name) })
	slices.Sort(all)
	return slices.Compact(all), nil
}
