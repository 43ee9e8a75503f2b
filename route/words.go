package route

import (
	"cmp"
	"fmt"
	"strings"

	"servent/system"
)

// Words says how the next instance is chosen: by request: weighted (api/1 75 %, api/2 25 %); clients stay by cookie.
func (s *Service) Words() string {
	text := fmt.Sprintf("by %s: ", s.Switch.By)
	if s.Locator != nil {
		return text + fmt.Sprintf("the owner of the key %s", s.Key)
	}
	if s.Switch.By == system.ByName {
		text += cmp.Or(s.Switch.Policy, "weighted")
		text += fmt.Sprintf(", answers hold for %s", s.Switch.TTL)
	} else {
		text += cmp.Or(s.Switch.Policy, Policies[0])
	}
	switch s.Switch.Policy {
	case "weighted":
		text += s.shares()
	case "hash", "maglev":
		text += " of " + s.hashes()
	}
	switch s.Switch.Sticky {
	case "", "none":
	case "cookie":
		text += "; clients stay by cookie " + CookieName(s.Name)
	case "key":
		text += "; clients stay by key " + s.Key.String()
	default:
		text += "; clients stay by " + s.Switch.Sticky
	}
	switch s.Switch.Model {
	case ModelOne:
		text += "; each door serves one at a time"
	case ModelEvents:
		text += "; each door serves by events"
	}
	return text
}

// CookieName is the cookie by which clients stay with an instance of a service: two services of one host must not
// share one.
func CookieName(service system.ServiceName) string { return "servent-" + string(service) }

// shares are what everyone gets by weight.
func (s *Service) shares() string {
	var sum float64
	var parts []string
	for _, in := range s.Instances {
		sum += in.Weight
	}
	if sum == 0 {
		return " (no capacity is known: all alike)"
	}
	for _, in := range s.Instances {
		parts = append(parts, fmt.Sprintf("%s %.0f %%", in.ID, 100*in.Weight/sum))
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// hashes is what a policy goes by.
func (s *Service) hashes() string {
	if key := s.Key.String(); key != "" && !s.Key.Source() {
		return key + ", else the source"
	}
	return "the source"
}
