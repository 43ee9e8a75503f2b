package lab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"servent/architecture"
	"servent/lab/result"
	"servent/system"
	"servent/system/notation"
)

// Subject is the service of a system that is compared: the one that the file names, else the only one
// with a key, else the only public one, else the only one.
func Subject(sys *system.System) (system.ServiceName, error) {
	if sys.Compare != nil && sys.Compare.Service != "" {
		return sys.Compare.Service, nil
	}
	for _, is := range []func(*system.Service) bool{
		func(s *system.Service) bool { return s.Key != "" },
		(*system.Service).Public,
		func(*system.Service) bool { return true },
	} {
		var found []string
		for i := range sys.Services {
			if is(&sys.Services[i]) {
				found = append(found, string(sys.Services[i].Name))
			}
		}
		switch len(found) {
		case 0:
		case 1:
			return system.ServiceName(found[0]), nil
		default:
			return "", &system.Hint{Err: fmt.Errorf("which service is compared? It may be any of %s", strings.Join(found, ", ")),
				Next: "servent compare --service " + found[0] + "   (or x-servent.compare.service in the file)"}
		}
	}
	return "", errors.New("the file has no service")
}

// Architectures are the words under which a service is compared when the file names no variants: those
// that run today and that its key and software allow, and that run before they are called. A quick comparison leaves
// out what goes hop by hop over an overlay: each row takes its time, and a few nodes show nothing of it.
func Architectures(s *system.Service, depth result.Depth) []string {
	var words []string
	for _, row := range architecture.Table {
		divides := row.Key == architecture.Must
		switch k := s.Software.Kind; {
		case !row.Built, row.Where == architecture.WhenCalled, row.Way == architecture.Overlay && depth != result.Full:
			continue
		case divides && s.Key == "", divides && (k == system.Files || k == system.Origin):
			continue
		}
		words = append(words, string(row.Word))
	}
	return words
}

// goal is what the file asks of a variant: by default that 90 % of the answers come within 100 ms, and
// that at most one request in a thousand fails. The default of a full comparison is about 99 %.
func goal(c *system.Compare) (result.Goal, error) {
	g := result.Goal{Percentile: 90, LatencyMS: 100, Errors: 0.001, Survive: 1, Default: true}
	if c == nil {
		return g, nil
	}
	for _, p := range []float64{99, 90, 50} { // the strictest that is named
		text, ok := c.Goal["p"+strconv.Itoa(int(p))]
		if !ok {
			continue
		}
		d, err := notation.Duration(text)
		if err != nil {
			return g, fmt.Errorf("goal: %w", err)
		}
		g.Percentile, g.LatencyMS, g.Default = p, float64(d)/1e6, false
		break
	}
	if text, ok := c.Goal["errors"]; ok {
		share, err := notation.Share(text)
		if err != nil {
			return g, fmt.Errorf("goal: errors: %w", err)
		}
		g.Errors = share
	}
	if text, ok := c.Goal["survive"]; ok {
		n, _, _ := strings.Cut(text, " ")
		g.Survive, _ = strconv.Atoi(n) // checked with the file
	}
	return g, nil
}
