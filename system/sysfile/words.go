package sysfile

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	units "github.com/docker/go-units"
	shellwords "github.com/mattn/go-shellwords"

	"servent/system"
)

// wrong is the one form in which a value is refused: what is wanted, what was found.
func wrong(want, have string) error { return fmt.Errorf("want %s, have %q", want, have) }

// formats are the words of values. The schema names them, the walk checks them, reading parses them.
var formats = map[string]func(string) error{
	"servent-amount":      check(amount),
	"servent-bits":        check(bits),
	"servent-bool":        check(truth),
	"servent-closed":      check(clients),
	"servent-constraint":  check(constraint),
	"servent-count":       check(count),
	"servent-duration":    check(duration),
	"servent-key":         check(keyTemplate),
	"servent-keys":        check(keySpread),
	"servent-line":        check(commandLine),
	"servent-name":        check(name),
	"servent-open":        check(arrivals),
	"servent-origin":      check(origin),
	"servent-path":        check(webPath),
	"servent-price":       check(price),
	"servent-rate":        check(rate),
	"servent-request-key": check(keyRequest),
	"servent-route":       check(route),
	"servent-share":       check(share),
	"servent-size":        check(size),
	"servent-spread":      check(spread),
	"servent-survive":     check(survive),

	"compose-count":     check(composeCount),
	"compose-duration":  check(composeDuration),
	"compose-number":    check(amount),
	"compose-port":      check(shortPort),
	"compose-address":   check(address),
	"compose-protocol":  check(protocol),
	"compose-published": check(published),
	"compose-target":    check(target),
	"compose-restart":   check(restart),
	"compose-signal":    check(signal),
	"compose-size":      check(size),
	"compose-volume":    check(composeVolume),
}

func check[T any](parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		_, err := parse(s)
		return err
	}
}

// duration is Go's, not negative.
func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, wrong("a duration like 100ms, 2s or 1h", s)
	}
	return d, nil
}

// size is in Compose's units: 64M and 64mb are 64 MiB, a bare number is bytes.
func size(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < 0 {
		return 0, wrong("a size like 64M or 2G", s)
	}
	return n, nil
}

func count(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, wrong("a whole number", s)
	}
	return n, nil
}

// composeCount is a count as Compose has it: -1 stands for no bound.
func composeCount(s string) (int, error) {
	if s == "-1" {
		return 0, nil
	}
	return count(s)
}

// composeDuration also knows days and weeks.
func composeDuration(s string) (time.Duration, error) {
	var d types.Duration
	if err := d.DecodeMapstructure(s); err != nil || d < 0 {
		return 0, wrong("a duration like 100ms, 2s or 1h30m", s)
	}
	return time.Duration(d), nil
}

func composeVolume(s string) (types.ServiceVolumeConfig, error) {
	v, err := format.ParseVolume(s)
	if err != nil {
		return v, wrong("a volume like data:/var/lib/data or ./folder:/srv:ro", s)
	}
	return v, nil
}

// restart is Compose's one-word restart policy.
func restart(s string) (system.Restart, error) {
	word, times, counted := strings.Cut(s, ":")
	n, err := count(times)
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

func signal(s string) (string, error) {
	if !signalForm.MatchString(s) {
		return "", wrong("a signal like SIGTERM", s)
	}
	return s, nil
}

func amount(s string) (float64, error) {
	f, ok := number(s)
	if !ok {
		return 0, wrong("a number", s)
	}
	return f, nil
}

// number is finite and not negative.
func number(s string) (float64, bool) {
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f >= 0 && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func truth(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, wrong("true or false", s)
}

func name(s string) (string, error) {
	if strings.TrimSpace(s) == "" || strings.ContainsRune(s, 0) {
		return "", wrong("some text", s)
	}
	return s, nil
}

// rate is a number a second.
func rate(s string) (float64, error) {
	num, ok := strings.CutSuffix(s, "/s")
	f, good := number(strings.TrimSpace(num))
	if !ok || !good || f == 0 {
		return 0, wrong("a rate like 200/s", s)
	}
	return f, nil
}

var bitUnits = []struct {
	suffix string
	factor float64
}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12}, {"bit", 1}}

// bits is a link's rate in bits a second; units are decimal, as on every cable.
func bits(s string) (int64, error) {
	low := strings.TrimSuffix(strings.ToLower(s), "/s")
	for _, u := range bitUnits {
		if num, ok := strings.CutSuffix(low, u.suffix); ok {
			if f, ok := number(strings.TrimSpace(num)); ok && f*u.factor >= 1 && f*u.factor < 1e18 {
				return int64(f * u.factor), nil
			}
			break
		}
	}
	return 0, wrong("a link's rate like 50Mbit", s)
}

// share is a percentage or a number, 0…1.
func share(s string) (float64, error) {
	num, percent := strings.CutSuffix(s, "%")
	f, ok := number(strings.TrimSpace(num))
	if percent {
		f /= 100
	}
	if !ok || f > 1 {
		return 0, wrong("a share like 70%", s)
	}
	return f, nil
}

var priceForm = regexp.MustCompile(`^([0-9.eE+]+)(?: +([A-Z]{3})/(hour|month))?$`)

// price is an amount, alone or with a currency (ISO 4217) and a time.
func price(s string) (system.Price, error) {
	m := priceForm.FindStringSubmatch(s)
	if m == nil {
		return system.Price{}, wrong("a price like 5 EUR/month", s)
	}
	f, ok := number(m[1])
	if !ok {
		return system.Price{}, wrong("a price like 5 EUR/month", s)
	}
	return system.Price{Amount: f, Currency: m[2], Per: m[3]}, nil
}

var hostForm = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// route is host/path or /path; a * at the end means all below.
func route(s string) (system.Route, error) {
	const want = "a route like shop.example.org/api/* or /api/*"
	host, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://"), "/")
	host = strings.ToLower(host)
	switch {
	case strings.Contains(s, "://"):
		return system.Route{}, fmt.Errorf("want a route without scheme like %s/%s, have %q", host, rest, s)
	case !ok:
		return system.Route{}, fmt.Errorf("%w: a path is missing, %s/* is all of a host", wrong(want, s), cmp.Or(host, "HOST"))
	case host != "" && !hostForm.MatchString(host):
		return system.Route{}, fmt.Errorf("%w: %q is no host name", wrong(want, s), host)
	case strings.ContainsAny(rest, " ?#{}\t\r\n"):
		return system.Route{}, fmt.Errorf("%w: a path has no spaces, ?, # or braces", wrong(want, s))
	case strings.Contains(strings.TrimSuffix(rest, "*"), "*"), strings.HasSuffix(rest, "*") && rest != "*" && !strings.HasSuffix(rest, "/*"):
		return system.Route{}, fmt.Errorf("%w: * stands only at the end, after a /", wrong(want, s))
	}
	return system.Route{Host: host, Path: "/" + rest}, nil
}

func webPath(s string) (string, error) {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, " \t\r\n#") {
		return "", wrong("a path like /healthz", s)
	}
	return s, nil
}

func origin(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", wrong("the address of an HTTP server like http://127.0.0.1:9000", s)
	}
	return s, nil
}

var (
	keyName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110 §5.6.2, token
	jsonKey = regexp.MustCompile(`^[^.\s]+(\.[^.\s]+)*$`)
)

// keyTemplate says where a request's key stands.
func keyTemplate(s string) (string, error) {
	const want = "a key like /carts/{key}/*, header:X-User, query:id, cookie:sid, json:user.id or source"
	if s == "source" {
		return s, nil
	}
	if strings.HasPrefix(s, "/") {
		if err := keyPath(s); err != nil {
			return "", fmt.Errorf("%w: %w", wrong(want, s), err)
		}
		return s, nil
	}
	kind, of, _ := strings.Cut(s, ":")
	ok := false
	switch kind {
	case "header", "cookie":
		ok = keyName.MatchString(of)
	case "query":
		ok = of != "" && !strings.ContainsAny(of, "&=# \t")
	case "json":
		ok = jsonKey.MatchString(of)
	}
	if !ok {
		return "", wrong(want, s)
	}
	return s, nil
}

// keyPath checks a path with {key} as one whole segment and * at most at the end.
func keyPath(s string) error {
	keys := 0
	segments := strings.Split(s[1:], "/")
	for i, seg := range segments {
		switch {
		case seg == "{key}":
			keys++
		case seg == "*" && i == len(segments)-1:
		case strings.ContainsAny(seg, "{}"):
			return fmt.Errorf("the key is written {key}, alone between slashes")
		case strings.ContainsAny(seg, "* ?#\t\r\n"):
			return fmt.Errorf("* stands only at the end, after a /")
		}
	}
	if keys != 1 {
		return fmt.Errorf("{key} must stand in it once")
	}
	return nil
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// request is METHOD /path; a {key} in it is whole between slashes or after =.
func request(s string) (string, error) {
	method, at, ok := strings.Cut(s, " ")
	if !ok || !slices.Contains(methods, method) || !strings.HasPrefix(at, "/") || strings.ContainsAny(at, " *\t\r\n#") ||
		strings.ContainsAny(strings.ReplaceAll(at, "{key}", ""), "{}") {
		return "", wrong("a request like GET /carts/{key}", s)
	}
	return s, nil
}

func keyRequest(s string) (string, error) {
	_, err := request(s)
	if err != nil || strings.Count(s, "{key}") != 1 {
		return "", wrong("a request like GET /_export/{key}", s)
	}
	return s, nil
}

// arrivals of an open load: one rate or a climb from one to another.
func arrivals(s string) (string, error) {
	const want = "arrivals like 500/s or 50..2000/s"
	from, to, climb := strings.Cut(s, "..")
	if !climb {
		from, to = "", s
	}
	high, err := rate(to)
	if err != nil {
		return "", wrong(want, s)
	}
	if low, ok := number(from); climb && (!ok || low <= 0 || low >= high) {
		return "", wrong(want, s)
	}
	return s, nil
}

// clients of a closed load: a number or a climb.
func clients(s string) (string, error) {
	const want = "a number of clients like 16 or 1..64"
	from, to, climb := strings.Cut(s, "..")
	low, err := count(from)
	if err != nil || low < 1 {
		return "", wrong(want, s)
	}
	if high, err := count(to); climb && (err != nil || high <= low) {
		return "", wrong(want, s)
	}
	return s, nil
}

var keySpreadForm = regexp.MustCompile(`^(?:zipf ([0-9.]+)|uniform) of ([0-9.eE+]+)$`)

// keySpread says which of how many keys are asked for.
func keySpread(s string) (string, error) {
	const want = "keys like zipf 0.99 of 1e5 or uniform of 1000"
	m := keySpreadForm.FindStringSubmatch(s)
	if m == nil {
		return "", wrong(want, s)
	}
	n, ok := number(m[2])
	if !ok || n < 1 || n > 1e12 || n != math.Trunc(n) {
		return "", wrong(want, s)
	}
	if _, ok := number(m[1]); m[1] != "" && !ok {
		return "", wrong(want, s)
	}
	return s, nil
}

var surviveForm = regexp.MustCompile(`^[1-9][0-9]* (nodes?|sites?)$`)

func survive(s string) (string, error) {
	if !surviveForm.MatchString(s) {
		return "", wrong("what may be lost, like 1 node or 1 site", s)
	}
	return s, nil
}

// commandLine splits a line as a shell would; it runs no shell and expands nothing.
func commandLine(s string) ([]string, error) {
	p := shellwords.NewParser()
	run, err := p.Parse(s)
	if err != nil || len(run) == 0 {
		return nil, wrong("a command line like ./bin/api --flag", s)
	}
	if p.Position >= 0 { // it stops at the first ; & | < >
		return nil, fmt.Errorf("want one command without a shell's %q, have %q; for a shell write [sh, -c, \"…\"]", []rune(s)[p.Position], s)
	}
	return run, nil
}

// constraint is one line of deploy.placement.constraints: attribute, == or !=, value.
func constraint(s string) (system.Constraint, error) {
	const want = "a constraint like node.labels.disk == ssd"
	attr, val, ok := strings.Cut(s, "!=")
	not := ok
	if !ok {
		if attr, val, ok = strings.Cut(s, "=="); !ok {
			return system.Constraint{}, wrong(want, s)
		}
	}
	attr, val = strings.TrimSpace(attr), strings.TrimSpace(val)
	if attr == "node.hostname" { // Docker's word for the same thing
		attr = "node.id"
	}
	if val == "" || strings.ContainsAny(val, "=!") {
		return system.Constraint{}, wrong(want, s)
	}
	known, err := attribute(attr)
	if err != nil {
		return system.Constraint{}, err
	}
	if roles := []string{"server", "node", "edge"}; known == "node.role" && !slices.Contains(roles, val) {
		return system.Constraint{}, fmt.Errorf("want one of %s as node.role, have %q%s", strings.Join(roles, ", "), val, suggest(val, roles))
	}
	return system.Constraint{Attribute: known, Not: not, Value: val}, nil
}

// spread is what instances are spread over: site, or a label.
func spread(s string) (string, error) {
	attr := strings.TrimSpace(s)
	if attr == "site" || attr == "node.site" {
		return "site", nil
	}
	if !strings.HasPrefix(attr, "node.labels.") || attr == "node.labels." {
		return "", wrong("site or node.labels.NAME", s)
	}
	return attr, nil
}

// attribute is what a node can be told apart by.
func attribute(s string) (string, error) {
	label, ok := strings.CutPrefix(s, "node.labels.")
	switch {
	case ok && label != "" && !strings.ContainsAny(label, " \t"):
		return s, nil
	case s == "node.id", s == "node.role", s == "node.site":
		return s, nil
	}
	return "", fmt.Errorf("want node.id, node.role, node.site or node.labels.NAME, have %q", s)
}

// address is a literal IP address to listen on.
func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil && s != "" {
		return a, wrong("an IP address to listen on", s)
	}
	return a, nil
}

// published is a port, or the first of a range; "" and 0 leave the choice to us.
func published(s string) (int, error) {
	from, to, ranged := strings.Cut(s, "-")
	n, err := count(from)
	if m, bad := count(to); err != nil && s != "" || n > 65535 || ranged && (bad != nil || m < n || m > 65535) {
		return 0, wrong("a published port from 1 to 65535", s)
	}
	return n, nil
}

func target(s string) (int, error) {
	n, err := count(s)
	if err != nil || n < 1 || n > 65535 {
		return 0, wrong("a target port from 1 to 65535", s)
	}
	return n, nil
}

func protocol(s string) (string, error) {
	if s != "tcp" && s != "udp" {
		return "", wrong("tcp or udp", s)
	}
	return s, nil
}

// shortPort is Compose's [HOST:][PUBLISHED:]TARGET[/PROTOCOL], each port may be a range.
func shortPort(s string) ([]types.ServicePortConfig, error) {
	all, err := types.ParsePortConfig(s)
	if err != nil {
		return nil, wrong("ports like 8080:80 or 127.0.0.1:8080:80/tcp", s)
	}
	for _, p := range all {
		if _, err := protocol(p.Protocol); err != nil {
			return nil, err
		}
	}
	return all, nil
}
