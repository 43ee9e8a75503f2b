package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"servent/system"
)

// Choice is a kind of checker for a mix of requests.
type Choice struct {
	Kind    Kind
	Entries []int  // of the mix, that the checker is to look at
	Why     string // in words
}

// Options of a checker for this choice.
func (c Choice) Options() Options { return Options{Entries: c.Entries, Why: c.Why} }

// about are the entries of a mix about one path.
type about struct {
	path    string
	methods []string
	entries []int
	weight  float64
}

func (a *about) has(methods ...string) bool {
	return slices.ContainsFunc(methods, func(m string) bool { return slices.Contains(a.methods, m) })
}

// Auto picks the checker from the methods and paths of a mix. A path that is written to comes first, of
// several the one with the greatest weight.
func Auto(mix []system.MixEntry) Choice {
	var paths []*about
	reads := true
	for i, e := range mix {
		method, path, ok := strings.Cut(e.Request, " ")
		if !ok {
			return Choice{None, []int{}, fmt.Sprintf("%q is no HTTP request: what its answer should be is not known", e.Request)}
		}
		at := slices.IndexFunc(paths, func(a *about) bool { return a.path == path })
		if at < 0 {
			at = len(paths)
			paths = append(paths, &about{path: path})
		}
		a := paths[at]
		a.methods, a.entries, a.weight = append(a.methods, method), append(a.entries, i), a.weight+e.Weight
		reads = reads && (method == "GET" || method == "HEAD")
	}
	if len(mix) == 0 {
		return Choice{None, []int{}, "there are no requests"}
	}
	if reads {
		return Choice{Hash, nil, "the mix only reads: one request must have one answer, whoever gives it"}
	}
	slices.SortStableFunc(paths, func(a, b *about) int { return cmp.Compare(b.weight, a.weight) })
	for _, a := range paths {
		if c := a.choice(paths); c.Kind != None {
			if left := len(mix) - len(c.Entries); left > 0 {
				c.Why += fmt.Sprintf("; the answers of %d other %s are not looked at", left, plural(left, "request"))
			}
			return c
		}
	}
	return Choice{None, []int{}, "the mix writes what it does not read back on the same path"}
}

// choice is the checker for one path.
func (a *about) choice(all []*about) Choice {
	key := strings.Contains(a.path, "{key}")
	switch {
	case a.has("PATCH"):
	case key && a.has("PUT", "POST") && !a.has("GET"):
		for _, list := range all {
			if list.has("GET") && list.path == strings.TrimSuffix(strings.TrimSuffix(a.path, "{key}"), "/") {
				return Choice{Set, append(slices.Clone(a.entries), list.entries...),
					fmt.Sprintf("%s adds to what GET %s lists", a.path, list.path)}
			}
		}
		if a.has("POST") && !a.has("PUT", "DELETE") {
			return Choice{Counter, a.entries, fmt.Sprintf("POST %s is taken to count and to answer the number", a.path)}
		}
	case a.has("PUT") && a.has("GET") && !a.has("POST"):
		return Choice{KV, a.entries, fmt.Sprintf("GET %s must give back what PUT put there", a.path)}
	case a.has("POST") && !a.has("PUT", "DELETE"):
		why := fmt.Sprintf("POST %s is taken to count and to answer the number", a.path)
		if a.has("GET") {
			why += ", GET to read it"
		}
		return Choice{Counter, a.entries, why}
	}
	return Choice{Kind: None}
}

func plural(n int, what string) string {
	if n == 1 {
		return what
	}
	return what + "s"
}
