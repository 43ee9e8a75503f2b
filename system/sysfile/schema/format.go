package schema

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"

	"servent/system/notation"
)

// Format is the parser of a format that the schema names: how a value is written. It is nil for one that
// we leave to the schema's other words. Package notation reads them, and the Compose library what is Compose's alone.
func Format(name string) func(string) error { return formats[name] }

var formats = map[string]func(string) error{
	"servent-amount":      check(notation.Amount),
	"servent-bits":        check(notation.Bits),
	"servent-bool":        check(notation.Truth),
	"servent-closed":      check(notation.Clients),
	"servent-constraint":  check(notation.Constraint),
	"servent-count":       check(notation.Count),
	"servent-duration":    check(notation.Duration),
	"servent-expect":      check(notation.Expect),
	"servent-key":         check(notation.Key),
	"servent-keys":        check(notation.Keys),
	"servent-line":        check(notation.CommandLine),
	"servent-listen":      check(notation.Listen),
	"servent-network":     check(notation.Network),
	"servent-name":        check(notation.Text),
	"servent-open":        check(notation.Arrivals),
	"servent-origin":      check(notation.Origin),
	"servent-path":        check(notation.Path),
	"servent-price":       check(notation.Price),
	"servent-rate":        check(notation.Rate),
	"servent-request-key": check(notation.KeyRequest),
	"servent-route":       check(notation.Route),
	"servent-share":       check(notation.Share),
	"servent-size":        check(notation.Size),
	"servent-spread":      check(notation.Spread),
	"servent-survive":     check(notation.Loss),

	"compose-address":   check(notation.Address),
	"compose-condition": oneOf("any", "on-failure", "none"),
	"compose-count":     check(composeCount),
	"compose-duration":  check(composeDuration),
	"compose-failure":   oneOf("pause", "continue", "rollback"),
	"compose-number":    check(notation.Amount),
	"compose-port":      check(composePorts),
	"compose-protocol":  check(notation.Protocol),
	"compose-published": check(notation.Published),
	"compose-restart":   check(notation.Restart),
	"compose-signal":    check(notation.Signal),
	"compose-size":      check(notation.Size),
	"compose-target":    check(notation.Target),
	"compose-volume":    check(format.ParseVolume, "a volume like data:/var/lib/data or ./folder:/srv:ro"),
}

// check is a reader that only says whether it can read; want replaces its words on what it wants.
func check[T any](read func(string) (T, error), want ...string) func(string) error {
	return func(s string) error {
		_, err := read(s)
		if err != nil && len(want) > 0 {
			return fmt.Errorf("want %s, have %q", want[0], s)
		}
		return err
	}
}

// oneOf checks words that Compose's schema leaves open; "" leaves the choice to us.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if s == "" || slices.Contains(words, s) {
			return nil
		}
		return fmt.Errorf("want one of %s, have %q%s", strings.Join(words, ", "), s, notation.Suggest(s, words))
	}
}

// composeCount is a count as Compose has it: -1 stands for no bound.
func composeCount(s string) (int, error) {
	if s == "-1" {
		return 0, nil
	}
	return notation.Count(s)
}

// composeDuration also knows days and weeks.
func composeDuration(s string) (time.Duration, error) {
	var d types.Duration
	if err := d.DecodeMapstructure(s); err != nil || d < 0 {
		if _, err := notation.Amount(s); err == nil {
			return 0, fmt.Errorf("want a duration like 100ms, 2s or 1h30m, have %q: the unit is missing", s)
		}
		return 0, fmt.Errorf("want a duration like 100ms, 2s or 1h30m, have %q", s)
	}
	return time.Duration(d), nil
}

// composePorts is [HOST:][PUBLISHED:]TARGET[/PROTOCOL]; each port may be a range.
func composePorts(s string) ([]types.ServicePortConfig, error) {
	all, err := types.ParsePortConfig(s)
	if err != nil {
		return nil, fmt.Errorf("want ports like 8080:80 or 127.0.0.1:8080:80/tcp, have %q", s)
	}
	for _, p := range all {
		if _, err := notation.Protocol(p.Protocol); err != nil {
			return nil, err
		}
	}
	return all, nil
}
