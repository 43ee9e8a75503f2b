package launch

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Unit is a machine's part as a service of systemd.
type Unit struct {
	Program string // absolute
	Folder  string // absolute; all that it writes is below
	User    string // who it runs as; root for containers by runc
	Words   []string
}

// unitMark is the first line of every unit of ours.
const unitMark = "# Written by: servent node install"

// IsUnit says that the text of a unit is one that Text wrote.
func IsUnit(text string) bool { return strings.HasPrefix(text, unitMark) }

// Text is the unit file (systemd.service(5), systemd.exec(5)): restarted whatever it ends by, and held to what a node needs. Memory
// that is written and executed stays allowed, because modules are compiled; so do /dev/kvm and namespaces where the user is root.
func (u Unit) Text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(unitMark)
	line("[Unit]\nDescription=Servent in %s", u.Folder)
	line("Documentation=man:servent(1)\nWants=network-online.target\nAfter=network-online.target")
	line("StartLimitIntervalSec=0\n\n[Service]\nType=exec")
	line("User=%s\nWorkingDirectory=%s", u.User, strings.ReplaceAll(u.Folder, "%", "%%")) // to the end of the line, without quotes
	words := []string{quoted(u.Program), "-C", quoted(u.Folder)}
	for _, w := range u.Words {
		words = append(words, quoted(w))
	}
	line("ExecStart=%s", strings.Join(words, " "))
	line("Restart=always\nRestartSec=2\nKillMode=mixed\nTimeoutStopSec=90\nLimitNOFILE=65536\nUMask=0077\n")
	line("ProtectSystem=strict\nReadWritePaths=%s", quoted(u.Folder))
	if !below(u.Folder, "/home", "/root", "/run/user") && !below(u.Program, "/home", "/root", "/run/user") {
		line("ProtectHome=yes")
	} else {
		line("ProtectHome=read-only")
	}
	line("PrivateTmp=yes\nProtectClock=yes\nProtectHostname=yes\nProtectKernelLogs=yes\nProtectKernelModules=yes")
	line("LockPersonality=yes\nRestrictRealtime=yes\nSystemCallArchitectures=native")
	if u.User == "root" { // containers: their own namespaces, mounts and control groups
		line("Delegate=yes")
	} else {
		line("NoNewPrivileges=yes\nCapabilityBoundingSet=\nAmbientCapabilities=\nRestrictSUIDSGID=yes\nRestrictNamespaces=yes")
		line("ProtectControlGroups=yes\nProtectKernelTunables=yes\nProtectProc=invisible\nRemoveIPC=yes")
		line("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK\nSystemCallFilter=@system-service")
		line("DevicePolicy=closed\nDeviceAllow=/dev/kvm rw")
	}
	line("\n[Install]\nWantedBy=multi-user.target")
	return b.String()
}

// quoted is a word of a unit file: % and $ mean something there.
func quoted(word string) string {
	word = strings.NewReplacer("%", "%%", "$", "$$").Replace(word)
	if strings.ContainsAny(word, " \t\"'\\;") {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
	}
	return word
}

func below(path string, dirs ...string) bool {
	for _, d := range dirs {
		if path == d || strings.HasPrefix(filepath.Clean(path), d+"/") {
			return true
		}
	}
	return false
}
