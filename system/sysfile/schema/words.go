package schema

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"servent/system/notation"
)

// Home is where a key belongs that the mapping at a path does not know: on one of the levels that are
// easily mixed up, or, if deep, one below.
func Home(key string, at []string, deep bool) string {
	var levels [][]string
	service := []string{"services", "NAME"}
	if len(at) > 1 && at[0] == "services" {
		service = at[:2]
	}
	mine := append(slices.Clip(service), "x-servent")
	switch name(at) {
	case "":
		levels = [][]string{{"x-servent"}, service, mine}
	case "x-servent", name(service), name(mine):
		levels = [][]string{mine, service}
	}
	for _, level := range levels {
		r := Rules().At(level...)
		if r.Props[key] != nil {
			return name(level)
		}
		var below []string
		for _, word := range slices.Sorted(maps.Keys(r.Props)) {
			if slices.ContainsFunc(r.Props[word].Leaves(), func(r *Rule) bool { return r.Props[key] != nil }) {
				below = append(below, name(level)+"."+word)
			}
		}
		if deep && len(below) > 0 && len(below) <= 3 {
			return strings.Join(below, " or ")
		}
	}
	return ""
}

// formWords are the schema's forms of text that users meet, in words.
var formWords = map[string]string{
	"[a-zA-Z0-9][a-zA-Z0-9_.-]+": "two or more letters, digits, _, . and -",
	"^(always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+)$": "one of always, never, build, if_not_present, missing, refresh, daily, weekly, every_12h",
	"^[a-z][a-z0-9-]*$": "a name of lower-case letters, digits and - that begins with a letter",
	"^[a-zA-Z0-9._-]+$": "a name of letters, digits, ., _ and -",
	"^[a-zA-Z0-9_-]+$":  "a name of letters, digits, _ and -",
}

// Form is a form of text in words, where we have them: a name of the form ^x$ else.
func Form(pattern, what string) string {
	return cmp.Or(formWords[pattern], what+" of the form "+pattern)
}

// Check says what is wrong with a text at a place where the rule allows one.
func (r *Rule) Check(s string) error {
	if len(r.Words) > 0 && !slices.Contains(r.Words, s) {
		return fmt.Errorf("want one of %s, have %q%s", strings.Join(r.Words, ", "), s, notation.Suggest(s, r.Words))
	}
	if r.Pattern != "" && !regexp.MustCompile(r.Pattern).MatchString(s) {
		return fmt.Errorf("want %s, have %q", Form(r.Pattern, "text"), s)
	}
	if parse := formats[r.Format]; parse != nil {
		if err := parse(s); err != nil {
			return err
		}
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && (r.Min != nil && f < *r.Min || r.Max != nil && f > *r.Max) {
		return fmt.Errorf("want %s, have %s", r.bounds(), s)
	}
	return nil
}

// bounds is "a number from 1 to 64".
func (r *Rule) bounds() string {
	switch {
	case r.Max == nil:
		return fmt.Sprintf("at least %v", *r.Min)
	case r.Min == nil:
		return fmt.Sprintf("at most %v", *r.Max)
	}
	return fmt.Sprintf("a number from %v to %v", *r.Min, *r.Max)
}

// Want is what the rule allows, in words.
func (r *Rule) Want() string {
	var words []string
	for _, c := range r.Leaves() {
		if len(c.Types) > 3 {
			return "a plain value"
		}
		if len(c.Words) > 0 {
			words = append(words, "one of "+strings.Join(c.Words, ", "))
			continue
		}
		for _, t := range c.Types {
			if t == "string" && slices.ContainsFunc(c.Types, func(t string) bool { return t == "integer" || t == "number" || t == "boolean" }) {
				continue // Compose allows text where a variable may stand
			}
			if t != "null" {
				words = append(words, typeWords[t])
			}
		}
	}
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " or ")
}

var typeWords = map[string]string{
	"object": "a mapping", "array": "a list", "string": "text",
	"integer": "a whole number", "number": "a number", "boolean": "true or false",
}
