package sysfile

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"servent/system"
	"servent/system/notation"
)

// What a call has where the file does not say.
const (
	callTimeout = 10 * time.Second
	callTries   = 3
	callWait    = 100 * time.Millisecond
	mapAtOnce   = 8
)

// Bounds of a flow.
const (
	stepsMost   = 1000
	depthMost   = 16
	triesMost   = 100
	timeoutMost = 10 * time.Minute
)

var (
	stepKinds = []string{"call", "parallel", "map", "choice", "fail", "return"}
	stepKeys  = map[string][]string{
		"call":     {"name", "request", "body", "timeout", "tries", "wait", "undo"},
		"parallel": {"name"}, "map": {"name", "steps", "at-once"}, "choice": {"name", "when", "else"}, "fail": {}, "return": {},
	}
	undoKeys = []string{"call", "request", "body", "timeout", "tries", "wait"}
)

// steps reads the steps of a flow.
func (f *file) steps(v value) (out []system.Step) {
	if !v.given() {
		return nil
	}
	for _, one := range v.items() {
		out = append(out, f.step(one))
	}
	return out
}

func (f *file) step(v value) (s system.Step) {
	s.Pos = f.pos(v.at)
	kind := ""
	for _, k := range stepKinds {
		switch {
		case !v.key(k).given() && !slices.Contains(v.keys(), k):
		case kind == "":
			kind = k
		default:
			v.key(k).wrong("want one kind of step, have %s and %s", kind, k)
		}
	}
	if kind == "" {
		v.wrong("want a step: %s", strings.Join(stepKinds, ", "))
		return s
	}
	known(v, append([]string{kind}, stepKeys[kind]...), kind)
	s.Name = v.key("name").text()
	if s.Name != "" && !plainName(s.Name) {
		v.key("name").wrong("want a name of letters, digits, - and _, have %q", s.Name)
	}
	at := v.key(kind)
	switch kind {
	case "call":
		s.Call = f.call(v)
		s.Name = cmp.Or(s.Name, string(s.Call.Service))
		if u := v.key("undo"); u.given() {
			s.Call.Undo = f.undo(u, s.Call)
		}
	case "parallel":
		s.Branches = [][]system.Step{}
		for _, branch := range at.items() {
			if _, list := branch.raw.([]any); !list {
				branch.wrong("want a list of steps for each branch")
			}
			s.Branches = append(s.Branches, f.steps(branch))
		}
	case "map":
		s.Map = &system.Map{Over: filled(at), AtOnce: cmp.Or(read(v.key("at-once"), notation.Count), mapAtOnce), Steps: f.steps(v.key("steps"))}
		if len(s.Map.Steps) == 0 {
			v.wrong("want steps: those to make for each item")
		}
	case "choice":
		s.Choice = &system.Choice{On: filled(at), When: map[string][]system.Step{}, Else: f.steps(v.key("else"))}
		for _, word := range v.key("when").keys() {
			s.Choice.When[word] = f.steps(v.key("when").key(word))
		}
		if len(s.Choice.When) == 0 {
			v.wrong("want when: the steps for each value")
		}
	case "fail":
		s.Fail = filled(at)
		if s.Fail == "" {
			at.wrong("want the words of the failure")
		}
	case "return":
		s.Return = allFilled(at)
	}
	return s
}

// call reads the request of a step.
func (f *file) call(v value) *system.Call {
	c := &system.Call{Service: system.ServiceName(v.key("call").text()), Timeout: callTimeout, Tries: callTries, Wait: callWait}
	f.request(v, c)
	return c
}

// undo reads what takes a step back: a request to the same service, or a call with all its words.
func (f *file) undo(v value, of *system.Call) *system.Call {
	c := &system.Call{Service: of.Service, Timeout: of.Timeout, Tries: of.Tries, Wait: of.Wait}
	if _, long := v.raw.(map[string]any); !long {
		c.Method, c.Path = requestLine(v)
		return c
	}
	known(v, undoKeys, "undo")
	if to := v.key("call"); to.given() {
		c.Service = system.ServiceName(to.text())
	}
	f.request(v, c)
	return c
}

func (f *file) request(v value, c *system.Call) {
	if r := v.key("request"); r.given() {
		c.Method, c.Path = requestLine(r)
	} else {
		v.wrong("want a request, as POST /reserve/{input.item}")
	}
	if b := v.key("body"); b.given() {
		c.Body = allFilled(b)
	}
	if t := v.key("timeout"); t.given() {
		if c.Timeout = read(t, notation.Duration); c.Timeout < time.Millisecond || c.Timeout > timeoutMost {
			t.wrong("want a timeout from 1ms to %s", timeoutMost)
		}
	}
	if t := v.key("wait"); t.given() {
		if c.Wait = read(t, notation.Duration); c.Wait < time.Millisecond || c.Wait > timeoutMost {
			t.wrong("want a wait from 1ms to %s", timeoutMost)
		}
	}
	if t := v.key("tries"); t.given() {
		if c.Tries = read(t, notation.Count); c.Tries < 1 || c.Tries > triesMost {
			t.wrong("want 1 to %d tries", triesMost)
		}
	}
}

// requestLine reads METHOD /PATH, whose path is a template.
func requestLine(v value) (method, path string) {
	method, path = plainRequest(v)
	if _, err := notation.ParseTemplate(path); err != nil {
		v.wrong("%s", err)
	}
	return method, path
}

// plainRequest reads METHOD /PATH.
func plainRequest(v value) (method, path string) {
	method, path, ok := strings.Cut(strings.TrimSpace(v.text()), " ")
	path = strings.TrimSpace(path)
	if !ok || !slices.Contains([]string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"}, method) || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, " \t\r\n#") {
		v.wrong("want METHOD /PATH, as POST /reserve, have %q", v.text())
		return method, ""
	}
	return method, path
}

// filled reads text that may have values in it.
func filled(v value) string {
	if _, err := notation.ParseTemplate(v.text()); err != nil {
		v.wrong("%s", err)
	}
	return v.text()
}

// allFilled reads a value whose texts may have values in them.
func allFilled(v value) any {
	switch raw := v.raw.(type) {
	case string:
		return filled(v)
	case []any:
		out := make([]any, len(raw))
		for i, one := range v.items() {
			out[i] = allFilled(one)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(raw))
		for _, k := range v.keys() {
			out[k] = allFilled(v.key(k))
		}
		return out
	}
	return v.raw
}

// known reports the keys that a step does not have.
func known(v value, keys []string, kind string) {
	for _, k := range v.keys() {
		if !slices.Contains(keys, k) {
			at := v.key(k)
			v.f.found.problem(v.f.keyPos(at.at), at.at, "unknown key in a step of the kind %s; it has: %s", kind, strings.Join(keys, ", "))
		}
	}
}

func plainName(s string) bool {
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// flow checks what only the whole file tells: services that are called, values that are there.
func (c checker) flow() {
	s, at := c.s, c.x("flow")
	switch {
	case !isFlow(s) && len(s.Flow) > 0:
		c.bad(at, "steps are of builtin: flow; the service is %s: %s", s.Software.Kind, s.Software.From)
		return
	case !isFlow(s):
		return
	case len(s.Flow) == 0:
		if !c.found.faulty(at) {
			c.bad(c.x("builtin"), "want flow: its steps")
		}
		return
	}
	if s.Architecture != system.Single && !c.found.faulty(c.x("architecture")) {
		c.bad(c.x("architecture"), "a flow's runs are kept by one instance: want single, have %s", s.Architecture)
	}
	w := tracer{checker: c}
	w.steps(s.Flow, at, []string{"input", "run"}, 1)
	if w.count > stepsMost {
		c.bad(at, "want at most %d steps, have %d", stepsMost, w.count)
	}
}

// tracer goes through a flow and knows which values there are.
type tracer struct {
	checker
	count int
}

func (w *tracer) steps(steps []system.Step, at path, values []string, depth int) {
	if depth > depthMost {
		w.bad(at, "want steps within steps to a depth of at most %d", depthMost)
		return
	}
	values = slices.Clone(values)
	for i := range steps {
		s, here := &steps[i], at.item(i)
		w.count++
		if i > 0 && (steps[i-1].Fail != "" || steps[i-1].Return != nil) {
			w.bad(here, "is never made: the step before it ends the flow")
		}
		switch {
		case s.Call != nil:
			w.call(s.Call, here, values)
			if s.Call.Undo != nil {
				w.call(s.Call.Undo, here.key("undo"), append(slices.Clone(values), s.Name))
			}
		case s.Branches != nil:
			for n, branch := range s.Branches {
				w.steps(branch, here.key("parallel").item(n), values, depth+1)
			}
		case s.Map != nil:
			w.text(s.Map.Over, here.key("map"), values)
			w.steps(s.Map.Steps, here.key("steps"), append(slices.Clone(values), "item", "index"), depth+1)
		case s.Choice != nil:
			w.text(s.Choice.On, here.key("choice"), values)
			for word, way := range s.Choice.When {
				w.steps(way, here.key("when").key(word), values, depth+1)
			}
			w.steps(s.Choice.Else, here.key("else"), values, depth+1)
		case s.Fail != "":
			w.text(s.Fail, here.key("fail"), values)
		default:
			w.any(s.Return, here.key("return"), values)
		}
		if slices.Contains([]string{"input", "run", "item", "index"}, s.Name) {
			w.bad(here.key("name"), "%s is a value of the flow's own", s.Name)
		}
		if s.Name != "" && !slices.Contains(values, s.Name) {
			values = append(values, s.Name)
		}
	}
}

func (w *tracer) call(call *system.Call, at path, values []string) {
	switch {
	case call.Service == w.s.Name:
		w.bad(at.key("call"), "a flow cannot call itself")
	case !slices.ContainsFunc(w.all.Services, func(s system.Service) bool { return s.Name == call.Service }):
		var names []string
		for _, s := range w.all.Services {
			if s.Name != w.s.Name {
				names = append(names, string(s.Name))
			}
		}
		w.bad(at.key("call"), "no service %s; there are: %s", call.Service, strings.Join(names, ", "))
	}
	w.text(call.Path, at.key("request"), values)
	w.any(call.Body, at.key("body"), values)
}

func (w *tracer) any(v any, at path, values []string) {
	switch v := v.(type) {
	case string:
		w.text(v, at, values)
	case []any:
		for i, one := range v {
			w.any(one, at.item(i), values)
		}
	case map[string]any:
		for k, one := range v {
			w.any(one, at.key(k), values)
		}
	}
}

// text checks that the values of a template are there.
func (w *tracer) text(text string, at path, values []string) {
	t, err := notation.ParseTemplate(text)
	if err != nil {
		return // said when it was read
	}
	for _, name := range t.Values() {
		if !slices.Contains(values, name) {
			w.bad(at, "there is no value %s here; there are: %s", name, strings.Join(values, ", "))
		}
	}
}
