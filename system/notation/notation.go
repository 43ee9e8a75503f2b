// Package notation is how single values are written in a system file: 2s, 64M, 50Mbit, 70%, /api/*,
// header:X-User, node.labels.disk == ssd. Each function reads one kind of value into the word of
// package system or of Go that it stands for, or says what is wanted and what was found.
//
// It knows no file, no YAML and no place, and it decides nothing: whether a value may stand where it
// stands is for system/sysfile to say, which adds the line and column. Start at [Duration]; all others
// have its form.
package notation

import (
	"fmt"
	"strings"
)

// wrong is the one form in which a value is refused.
func wrong(want, have string) error { return fmt.Errorf("want %s, have %q", want, have) }

// because is a refusal with its reason.
func because(want, have, why string) error {
	return fmt.Errorf("want %s, have %q: %s", want, have, why)
}

// Truth reads true or false, and none of YAML's older words for them.
func Truth(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, wrong("true or false", s)
}

// Text reads any text that shows something.
func Text(s string) (string, error) {
	if strings.TrimSpace(s) == "" || strings.ContainsRune(s, 0) {
		return "", wrong("some text", s)
	}
	return s, nil
}
