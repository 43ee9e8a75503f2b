package notation

import (
	"fmt"
	"strings"
)

// Suggest is ` (did you mean "ring"?)` when one of the words is near enough to be a slip, else "".
func Suggest(have string, words []string) string {
	if best := Nearest(have, words); best != "" {
		return fmt.Sprintf(" (did you mean %q?)", best)
	}
	return ""
}

// Nearest returns the word with the fewest slips from have, at most a third of its letters and three;
// the first of equals. Letter case and the choice of - or _ are no slips.
func Nearest(have string, words []string) string {
	plain := strings.NewReplacer("_", "-").Replace
	a, best, least := plain(strings.ToLower(have)), "", 4
	if len(a) > 64 {
		return ""
	}
	for _, w := range words {
		if d := slips(a, plain(strings.ToLower(w))); d < least && d < len(w) && d <= max(1, (len(w)+1)/3) && w != have {
			best, least = w, d
		}
	}
	return best
}

// slips counts letters to add, drop, change or swap with their neighbour (optimal string alignment,
// after Damerau, CACM 1964).
func slips(a, b string) int {
	s, t := []rune(a), []rune(b)
	rows := make([][]int, len(s)+1)
	for i := range rows {
		rows[i] = make([]int, len(t)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(s); i++ {
		for j := 1; j <= len(t); j++ {
			change := rows[i-1][j-1]
			if s[i-1] != t[j-1] {
				change++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, change)
			if i > 1 && j > 1 && s[i-1] == t[j-2] && s[i-2] == t[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(s)][len(t)]
}
