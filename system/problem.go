package system

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Pos is a place in a user's file. Line and Col count from 1; a zero Line means the whole file.
type Pos struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// String has the form editors jump to: compose.yaml:7:15.
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// Problem is one mistake in a user's file, or one note about it.
type Problem struct {
	Pos  Pos    `json:"pos"`
	Path string `json:"path"` // dotted path of the key: services.web.x-servent.route
	Msg  string `json:"msg"`  // what is wanted and what was found
}

// Error has the form editors jump to: shop.yaml:7:15: services.web.deploy.replicas: want a whole number, have "many"
func (p Problem) Error() string {
	if p.Path == "" {
		return p.Pos.String() + ": " + p.Msg
	}
	return p.Pos.String() + ": " + p.Path + ": " + p.Msg
}

// Problems are all mistakes of a user's files, sorted by place, shown together.
type Problems []Problem

// Error is one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Sort orders problems by file, line, column, path, message and drops repeats.
func (ps Problems) Sort() Problems {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Pos.File, b.Pos.File), cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Col, b.Pos.Col), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Msg, b.Msg))
	})
	return slices.Compact(ps)
}

// Hint joins an error with the command to try next. The command line prints it on a line of its own.
type Hint struct {
	Err  error
	Next string // a command, without a prompt
}

func (h *Hint) Error() string { return h.Err.Error() }

func (h *Hint) Unwrap() error { return h.Err }

// Next returns the command to try that the outermost [Hint] in err names, or "".
func Next(err error) string {
	if h, ok := errors.AsType[*Hint](err); ok {
		return h.Next
	}
	return ""
}
