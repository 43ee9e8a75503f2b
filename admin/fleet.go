package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"servent/identity"
	"servent/system"
)

// fleet is the fleet of this system, or why there is none.
func (d *Door) fleet() (Fleet, error) {
	if d.Fleet == nil {
		return nil, &system.Hint{Err: errors.New("this system runs on emulated nodes of one machine; nobody can join it"),
			Next: "in a new folder: servent up --listen ADDRESS   (of this machine, as others know it)"}
	}
	return d.Fleet, nil
}

func (d *Door) token(w http.ResponseWriter, r *http.Request) error {
	f, err := d.fleet()
	if err != nil {
		return err
	}
	ttl, err := time.ParseDuration(r.URL.Query().Get("ttl"))
	if err != nil {
		return &coded{http.StatusBadRequest, fmt.Errorf("ttl: %w", err)}
	}
	t, err := f.Token(r.Context(), identity.Role(r.URL.Query().Get("role")), ttl)
	if err != nil {
		return err
	}
	return answer(w, t)
}

func (d *Door) label(w http.ResponseWriter, r *http.Request) error {
	f, err := d.fleet()
	if err != nil {
		return err
	}
	var labels map[string]string
	if err := decode(http.MaxBytesReader(w, r.Body, maxCounts), &labels); err != nil {
		return &coded{http.StatusBadRequest, fmt.Errorf(`read the labels, as {"disk": "ssd"}: %w`, err)}
	}
	if err := f.Label(r.Context(), system.NodeID(r.URL.Query().Get("node")), labels); err != nil {
		return err
	}
	return answer(w, d.said(r))
}

func (d *Door) remove(w http.ResponseWriter, r *http.Request) error {
	f, err := d.fleet()
	if err != nil {
		return err
	}
	if err := f.Remove(r.Context(), system.NodeID(r.URL.Query().Get("node"))); err != nil {
		return err
	}
	return answer(w, d.said(r))
}

const auditLast = 50 // acts that are said when nobody says how many

// audit streams what was written down of who did what.
func (d *Door) audit(w http.ResponseWriter, r *http.Request) error {
	f, err := d.fleet()
	if err != nil {
		return err
	}
	last := auditLast
	if text := r.URL.Query().Get("last"); text != "" {
		if last, err = strconv.Atoi(text); err != nil || last < 0 {
			return &coded{http.StatusBadRequest, fmt.Errorf("last: want a whole number from 0, have %q", text)}
		}
	}
	acts, err := f.Acts(last)
	if err != nil {
		return err
	}
	out := stream(w)
	for _, a := range acts {
		if out(a) != nil {
			break // the caller is gone
		}
	}
	return nil
}
