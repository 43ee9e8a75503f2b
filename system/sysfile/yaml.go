package sysfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// parse turns text into nodes. A file that is not YAML has one mistake, and nothing more is read of it.
func (s *source) parse(found *findings) {
	dec, err := yaml.NewLoader(bytes.NewReader(s.text), yaml.WithV3Defaults())
	if err != nil {
		panic("sysfile: the YAML reader: " + err.Error()) // our options are constant
	}
	for {
		var doc yaml.Node
		err := dec.Load(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.malformed(found, err)
			return
		}
		if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].ShortTag() == "!!null" {
			continue
		}
		top := doc.Content[0]
		if top.Kind != yaml.MappingNode {
			found.problem(s.pos(top), nil, "want a mapping with the key services, have %s", have(top))
			s.pruned = true
			continue
		}
		s.docs = append(s.docs, top)
	}
	if len(s.docs) == 0 && !s.pruned {
		found.problem(s.pos(nil), nil, "the file is empty; want services, as servent init NAME writes them")
		s.pruned = true
	}
}

// malformed reports text that is not YAML, in words for those who write it and not for those who parse it.
func (s *source) malformed(found *findings, err error) {
	s.pruned = true
	pos := s.pos(nil)
	bad, ok := errors.AsType[*yaml.LoadError](err)
	if !ok {
		found.problem(pos, nil, "not YAML: %s", err)
		return
	}
	if bad.Mark.Line > 0 {
		pos.Line, pos.Col = bad.Mark.Line, max(bad.Mark.Column, 1)
	} else if at := bytes.IndexFunc(s.text, func(r rune) bool { return r == '\uFFFD' }); at > 0 { // the first that is not UTF-8
		pos.Line = 1 + bytes.Count(s.text[:at], []byte("\n"))
		pos.Col = at - bytes.LastIndexByte(s.text[:at], '\n')
	}
	line := ""
	if lines := strings.Split(string(s.text), "\n"); pos.Line <= len(lines) {
		line = lines[pos.Line-1]
	}
	if at := strings.IndexByte(line[:len(line)-len(strings.TrimLeft(line, " \t"))], '\t'); at >= 0 {
		pos.Col = at + 1
		found.problem(pos, nil, "not YAML: a tab cannot indent; use spaces")
		return
	}
	msg, from := plainWords(bad.Message, bad.ContextMsg, line, pos.Col), bad.ContextMark.Line
	if from > 0 && from < pos.Line {
		msg += fmt.Sprintf(" (in what begins in line %d)", from)
	}
	found.problem(pos, nil, "not YAML: %s", msg)
}

// plainWords says what the YAML reader found at a column of a line, and what to do about it.
func plainWords(msg, within, line string, col int) string {
	before, at := line, ""
	if col <= len(line) {
		before, at = line[:col-1], line[col-1:]
	}
	name := strings.Trim(strings.TrimSuffix(strings.TrimPrefix(msg, "unknown anchor"), "referenced"), " '")
	for _, say := range []struct {
		when bool
		word string // of the reader's message
		ours string
	}{
		{strings.Contains(before, ": "), "mapping values are not allowed", "a second : in one line; put the text in quotes"},
		{true, "mapping values are not allowed", "the line above wants a : and a space behind its key"},
		{strings.ContainsAny(before, `"'`), "did not find expected key", "text behind a closing quote; put all of it in quotes"},
		{true, "did not find expected key", "this line stands in no column of those above; keys that belong together are indented alike"},
		{true, "did not find expected '-'", "want a - here, in the column of those above"},
		{true, "could not find expected ':'", "want a : and a space behind this key"},
		{strings.Contains(within, "quoted scalar"), "found unexpected end of stream", "a quote is never closed"},
		{true, "found unknown escape character", `in double quotes \ begins an escape; use single quotes`},
		{true, "cannot start any token", fmt.Sprintf("a value cannot begin with %.1s; put it in quotes", at)},
		{strings.Contains(within, "alias"), "did not find expected alphabetic", `* begins an alias; for the character itself write "*"`},
		{true, "unknown anchor", "no anchor &" + name + " stands above *" + name},
		{true, "invalid leading UTF-8", "a character that is not UTF-8; save the file as UTF-8"},
		{true, "did not find expected ','", strings.ReplaceAll(strings.TrimPrefix(msg, "did not find expected "), "'", "") + " is missing before this"},
		{true, "block sequence entries are not allowed", "a list cannot begin here; begin each - on a line of its own"},
	} {
		if say.when && strings.Contains(msg, say.word) {
			return say.ours
		}
	}
	return msg
}
