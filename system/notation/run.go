package notation

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	shellwords "github.com/mattn/go-shellwords"

	"servent/system"
)

// CommandLine splits a line into words as a shell would. It runs no shell and expands nothing. A
// backslash before a letter, which a shell would drop, is taken for a Windows path and refused.
func CommandLine(s string) ([]string, error) {
	const want = "a command line like ./bin/api --flag"
	if losesBackslash(s) {
		return nil, because(want, s, "as in a shell, \\ only hides the next letter; write / instead, or a list: ['.\\bin\\api.exe', --flag]")
	}
	p := shellwords.NewParser()
	run, err := p.Parse(s)
	switch {
	case err != nil && strings.Count(s, "'")+strings.Count(s, `"`) > 0:
		return nil, because(want, s, "a quote is not closed")
	case err != nil || len(run) == 0 || strings.ContainsRune(s, 0):
		return nil, wrong(want, s)
	case p.Position >= 0: // it stops at the first ; & | < >
		return nil, fmt.Errorf("want one command without a shell's %q, have %q; for a shell write [sh, -c, \"…\"]", []rune(s)[p.Position], s)
	}
	return run, nil
}

// losesBackslash says that a backslash outside single quotes stands before a plain letter.
func losesBackslash(s string) bool {
	single, double := false, false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'' && !double:
			single = !single
		case s[i] == '"' && !single:
			double = !double
		case s[i] == '\\' && !single:
			if i++; i < len(s) && (s[i] == '_' || s[i] == '.' || '0' <= s[i] && s[i] <= '9' || 'A' <= s[i]&^0x20 && s[i]&^0x20 <= 'Z') {
				return true
			}
		}
	}
	return false
}

// Restart reads Compose's one-word restart policy: no, always, on-failure:3, unless-stopped.
func Restart(s string) (system.Restart, error) {
	word, times, counted := strings.Cut(s, ":")
	n, err := Count(times)
	switch {
	case counted && (word != "on-failure" || err != nil):
	case word == "no":
		return system.Restart{Condition: "none"}, nil
	case word == "always", word == "unless-stopped":
		return system.Restart{Condition: "any"}, nil
	case word == "on-failure":
		return system.Restart{Condition: "on-failure", Max: n}, nil
	}
	return system.Restart{}, wrong("one of no, always, on-failure, on-failure:TIMES, unless-stopped", s)
}

var signalForm = regexp.MustCompile(`^((SIG)?[A-Z]{2,}[0-9]*([+-][0-9]+)?|[0-9]{1,2})$`)

// Signal reads the name or number of a signal: SIGTERM, INT, 9. Which of them a machine has is its own.
func Signal(s string) (string, error) {
	if !signalForm.MatchString(s) {
		return "", wrong("a signal like SIGTERM", s)
	}
	return s, nil
}

// Address reads a literal IP address to listen on; "" is none.
func Address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil && s != "" {
		return a, wrong("an IP address to listen on", s)
	}
	return a, nil
}

// Listen reads where to listen: an IP address and a port, or a port alone, which is one of 127.0.0.1.
func Listen(s string) (string, error) {
	const want = "a port like 8443, or an address and a port like 0.0.0.0:443"
	if n, err := Target(s); err == nil {
		return "127.0.0.1:" + strconv.Itoa(n), nil
	}
	at, err := netip.ParseAddrPort(s)
	if err != nil || at.Port() == 0 {
		return "", wrong(want, s)
	}
	return at.String(), nil
}

// Network reads an IP address, or all that begin like it, as 10.0.0.0/8.
func Network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Masked() != p {
		return netip.Prefix{}, wrong("an address like 192.0.2.7, or a network like 10.0.0.0/8", s)
	}
	return p, nil
}

// Published reads a published port, or a range of which it returns the first; "" and 0 leave the
// choice to us and return 0.
func Published(s string) (int, error) {
	from, to, ranged := strings.Cut(s, "-")
	n, err := Count(from)
	if m, bad := Count(to); err != nil && s != "" || n > 65535 || ranged && (bad != nil || m < n || m > 65535) {
		return 0, wrong("a published port from 1 to 65535", s)
	}
	return n, nil
}

// Target reads the port that a program listens on.
func Target(s string) (int, error) {
	n, err := Count(s)
	if err != nil || n < 1 || n > 65535 {
		return 0, wrong("a target port from 1 to 65535", s)
	}
	return n, nil
}

// Protocol reads tcp or udp.
func Protocol(s string) (string, error) {
	if s != "tcp" && s != "udp" {
		return "", wrong("tcp or udp", s)
	}
	return s, nil
}

// Constraint reads one line of deploy.placement.constraints: attribute, == or !=, value. Docker's
// node.hostname comes out as node.id.
func Constraint(s string) (system.Constraint, error) {
	const want = "a constraint like node.labels.disk == ssd"
	attr, val, ok := strings.Cut(s, "!=")
	not := ok
	if !ok {
		if attr, val, ok = strings.Cut(s, "=="); !ok {
			return system.Constraint{}, wrong(want, s)
		}
	}
	attr, val = strings.TrimSpace(attr), strings.TrimSpace(val)
	if attr == "node.hostname" {
		attr = "node.id"
	}
	if val == "" || strings.ContainsAny(val, "=!") {
		return system.Constraint{}, wrong(want, s)
	}
	if attr != "node.id" && attr != "node.role" && attr != "node.site" && !label(attr) {
		return system.Constraint{}, wrong("node.id, node.role, node.site or node.labels.NAME", attr)
	}
	if roles := []string{"server", "node", "edge"}; attr == "node.role" && !slices.Contains(roles, val) {
		return system.Constraint{}, fmt.Errorf("%w%s", wrong("one of "+strings.Join(roles, ", ")+" as node.role", val), Suggest(val, roles))
	}
	return system.Constraint{Attribute: attr, Not: not, Value: val}, nil
}

// label says that an attribute of a node is one of its labels.
func label(attr string) bool {
	name, ok := strings.CutPrefix(attr, "node.labels.")
	return ok && name != "" && !strings.ContainsAny(name, " \t")
}

// Spread reads what instances are spread over: site, or a label of nodes.
func Spread(s string) (string, error) {
	attr := strings.TrimSpace(s)
	if attr == "site" || attr == "node.site" {
		return "site", nil
	}
	if !label(attr) {
		return "", wrong("site or node.labels.NAME", s)
	}
	return attr, nil
}
