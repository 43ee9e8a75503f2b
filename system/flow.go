package system

import "time"

// Step is one step of a builtin flow: exactly one of Call, Branches, Map, Choice, Fail and Return is set. Texts in it may be templates
// of values: the start's input and the results of earlier steps, by name.
type Step struct {
	Name     string   `json:"name,omitempty"` // by which later steps find its result
	Call     *Call    `json:"call,omitempty"`
	Branches [][]Step `json:"parallel,omitempty"` // at once; the result is a list of each one's last result
	Map      *Map     `json:"map,omitempty"`
	Choice   *Choice  `json:"choice,omitempty"`
	Fail     string   `json:"fail,omitempty"`   // ends the flow; what was done is undone
	Return   any      `json:"return,omitempty"` // ends the flow with a result
	Pos      Pos      `json:"pos"`
}

// Call is one request to a service, which is made again as long as it may help.
type Call struct {
	Service ServiceName   `json:"service"`
	Method  string        `json:"method"`
	Path    string        `json:"path"`           // a template
	Body    any           `json:"body,omitempty"` // strings in it are templates; sent as JSON; nil: none
	Timeout time.Duration `json:"timeout"`        // of one try
	Tries   int           `json:"tries"`
	Wait    time.Duration `json:"wait"`           // before the second try; doubles from try to try
	Undo    *Call         `json:"undo,omitempty"` // takes it back when a later step fails
}

// Map makes its steps for each item of a list.
type Map struct {
	Over   string `json:"over"`    // a template whose value is a list
	AtOnce int    `json:"at_once"` // items
	Steps  []Step `json:"steps"`   // item and index are their values
}

// Choice goes one of several ways.
type Choice struct {
	On   string            `json:"on"` // a template
	When map[string][]Step `json:"when"`
	Else []Step            `json:"else,omitempty"`
}

// Trigger is what calls a service though no client does: the clock, or a change of a key in a builtin kv.
type Trigger struct {
	Cron string `json:"cron,omitempty"`
	Zone string `json:"zone,omitempty"` // UTC when it is empty

	Change ServiceName `json:"change,omitempty"` // a kv
	Prefix string      `json:"prefix,omitempty"` // of its keys; empty: all

	Method string `json:"method"`
	Path   string `json:"path"`
	Body   string `json:"body,omitempty"` // JSON
}
