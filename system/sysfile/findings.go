package sysfile

import (
	"fmt"
	"slices"
	"strings"

	"servent/system"
)

// findings collects what is said about a file.
type findings struct {
	problems, notes system.Problems
}

// faulty says that a value is missing or doubtful because something at, above or below it is wrong.
func (f *findings) faulty(p path) bool {
	at := p.String()
	return slices.ContainsFunc(f.problems, func(bad system.Problem) bool {
		return bad.Path == at || strings.HasPrefix(bad.Path, at+".") || strings.HasPrefix(at, bad.Path+".") && strings.Contains(bad.Path, ".")
	})
}

// said says that a message has been reported, wherever.
func (f *findings) said(msg string) bool {
	return slices.ContainsFunc(f.problems, func(p system.Problem) bool { return p.Msg == msg })
}

func (f *findings) problem(pos system.Pos, at path, format string, args ...any) {
	f.problems = append(f.problems, system.Problem{Pos: pos, Path: at.String(), Msg: fmt.Sprintf(format, args...)})
}

func (f *findings) note(pos system.Pos, at path, format string, args ...any) {
	f.notes = append(f.notes, system.Problem{Pos: pos, Path: at.String(), Msg: fmt.Sprintf(format, args...)})
}
