package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// list is a sentence of several findings.
type list []string

func (l *list) add(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// when adds a finding that there is some of.
func (l *list) when(n int64, format string, args ...any) {
	if n > 0 {
		l.add(format, args...)
	}
}

func (l list) String() string { return strings.Join(l, "; ") }

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
