// Package remote is the control store of all nodes that hold no etcd: [Handler] stands at the servers,
// before their store, and checks at every call what the caller's certificate lets it do; [Store] is the
// client. Both speak JSON over HTTP; a watch is a stream of lines. It opens no socket: the caller gives
// an [http.RoundTripper] in whose URLs the host is a node's name. Start at [Handler] and [Store].
package remote

import (
	"errors"
	"net/http"

	"servent/control"
)

// root is where the calls live: POST root+"range", "commit", "grant", "renew", "revoke" and "watch".
const root = "/v1/control/"

// What a call asks and is answered. A commit asks a [control.Txn]; renew and revoke are answered {}.
type (
	rangeCall struct {
		Prefix string `json:"prefix"`
	}
	rangeAnswer struct {
		KVs []control.KV `json:"kvs"`
		Rev control.Rev  `json:"rev"`
	}
	commitAnswer struct {
		Rev control.Rev `json:"rev"`
		OK  bool        `json:"ok"`
	}
	grantCall struct {
		TTL int64 `json:"ttl_ms"`
	}
	leaseWord struct { // renew, revoke; the answer of grant
		Lease control.LeaseID `json:"lease"`
	}
	watchCall struct {
		Prefix string      `json:"prefix"`
		From   control.Rev `json:"from"`
	}
	// watchLine is one line of a watch: a batch, a sign of life or the error that ends it.
	watchLine struct {
		Batch *control.Batch `json:"batch,omitempty"`
		Rev   control.Rev    `json:"rev,omitempty"` // of a sign of life: all up to it was given, or is not the caller's
		Error *failure       `json:"error,omitempty"`
	}
	// failure is the answer to a call that failed.
	failure struct {
		Code string `json:"code"`
		Text string `json:"error"`
	}
	nothing struct{}
)

var (
	errBusy = errors.New("too many watches") // comes out as control.ErrUnavailable
	errBad  = errors.New("bad call")         // the caller's mistake
)

// codes are what errors are called on the wire. They never change.
var codes = []struct {
	code   string
	status int
	err    error
}{
	{"compacted", http.StatusGone, control.ErrCompacted},
	{"lease-lost", http.StatusNotFound, control.ErrLeaseLost},
	{"denied", http.StatusForbidden, control.ErrDenied},
	{"too-large", http.StatusRequestEntityTooLarge, control.ErrTooLarge},
	{"busy", http.StatusTooManyRequests, errBusy},
	{"back", http.StatusConflict, control.ErrBack},
	{"unavailable", http.StatusServiceUnavailable, control.ErrUnavailable},
	{"bad", http.StatusBadRequest, errBad},
}

// codeOther is the code of an error that no caller branches on.
const codeOther = "failed"

// fail gives an error its code and status.
func fail(err error) (failure, int) {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return failure{c.code, err.Error()}, c.status
		}
	}
	return failure{codeOther, err.Error()}, http.StatusInternalServerError
}

// failed is a failure that came over the wire. Its text has the server's words, which end in the sentinel's.
type failed struct {
	failure
	is error // one of codes, or nil
}

func (f *failed) Error() string { return f.Text }

func (f *failed) Unwrap() error { return f.is }

// err is the failure as an error of control's.
func (f failure) err() error {
	for _, c := range codes {
		if f.Code == c.code {
			if c.err == errBusy {
				return &failed{f, control.ErrUnavailable}
			}
			return &failed{f, c.err}
		}
	}
	return &failed{f, nil}
}
