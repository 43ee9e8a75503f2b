package sysfile

import (
	"encoding/json"

	"servent/system"
	"servent/system/notation"
)

const triggersMost = 50

// triggers reads what calls a service though no client does.
func (f *file) triggers(v value) (out []system.Trigger) {
	for _, one := range v.items() {
		t := system.Trigger{Cron: one.key("cron").text(), Zone: one.key("zone").text(), Change: system.ServiceName(one.key("change").text()), Prefix: one.key("prefix").text()}
		if !one.key("request").given() {
			continue // said by the schema
		}
		switch cron, change := one.key("cron").given(), one.key("change").given(); {
		case cron == change:
			one.wrong("want cron or change: what it is called by")
			continue
		case change && one.key("zone").given():
			one.key("zone").wrong("a zone is of cron")
		case change && one.key("body").given():
			one.key("body").wrong("a change brings its own body")
		case cron && one.key("prefix").given():
			one.key("prefix").wrong("a prefix is of change")
		case cron:
			if _, err := notation.Cron(t.Cron, ""); err != nil {
				one.key("cron").wrong("%s", err)
			} else if _, err := notation.Cron(t.Cron, t.Zone); err != nil {
				one.key("zone").wrong("%s", err)
			}
		}
		t.Method, t.Path = plainRequest(one.key("request"))
		if b := one.key("body"); b.given() {
			text, err := json.Marshal(b.raw)
			if err != nil {
				b.wrong("want what JSON can say: %s", err)
			}
			t.Body = string(text)
		}
		out = append(out, t)
	}
	return out
}

// triggers checks what only the whole service tells.
func (c checker) triggers() {
	at := c.x("on")
	switch {
	case len(c.s.On) == 0:
	case len(c.s.On) > triggersMost:
		c.bad(at, "want at most %d, have %d", triggersMost, len(c.s.On))
	case c.s.Switch.By != system.ByRequest:
		c.bad(at, "it is called by HTTP: want switch.by: request, have %s", c.s.Switch.By)
	case c.s.Key != "" && c.s.NoKey != "any":
		c.bad(at, "requests of this service have a key, %s; want nokey: any", c.s.Key)
	}
	for i, t := range c.s.On {
		if t.Change == "" {
			continue
		}
		here := at.item(i).key("change")
		switch of := c.all.Service(t.Change); {
		case of == nil || !isKV(of):
			c.bad(here, "want a service that is builtin: kv; %s is none", t.Change)
		case of.Architecture != system.Single:
			c.unbuilt(here, "changes are told of a kv that is single; %s is %s", t.Change, of.Architecture)
		}
	}
}
