package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"servent/store"
	"servent/system"
)

// tellWithin is how long a service may take to take a change.
const tellWithin = time.Minute

// watch has a database tell those of its changes who are called by them, as the plan has it.
func (s *stores) watch(id system.InstanceID, db *store.Store, plan *system.Plan) {
	of, _, err := id.Split()
	if err != nil || plan == nil {
		return
	}
	var list []store.Watch
	for i := range plan.Services {
		svc := &plan.Services[i].Service
		for n, on := range svc.On {
			if on.Change == of {
				list = append(list, s.node.watcher(svc.Name, n, on))
			}
		}
	}
	if err := db.Watch(list); err != nil {
		s.node.log.Error("tell of changes", "instance", id, "err", err)
	}
}

// watcher calls a service at its door here for each change.
func (n *Node) watcher(name system.ServiceName, number int, on system.Trigger) store.Watch {
	w := store.Watch{Name: string(name) + "/" + strconv.Itoa(number) + " " + on.Method + " " + on.Path, Prefix: on.Prefix}
	w.Tell = func(ctx context.Context, c store.Change) error {
		ctx, cancel := context.WithTimeout(ctx, tellWithin)
		defer cancel()
		base := n.door(name)
		if base == "" {
			return errors.New("its door is not open yet")
		}
		body, err := json.Marshal(struct {
			Service system.ServiceName `json:"service"`
			store.Change
		}{on.Change, c})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, on.Method, base+on.Path, bytes.NewReader(body))
		if err != nil {
			return fmt.Errorf("%w: %w", store.ErrSkip, err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Servent-Event", "change")
		req.Header.Set("Idempotency-Key", fmt.Sprintf(`"change/%s/%d"`, on.Change, c.Number))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		words, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // only words
		switch code := resp.StatusCode; {
		case code < 300:
			return nil
		case code < 500 && code != http.StatusRequestTimeout && code != http.StatusTooEarly && code != http.StatusTooManyRequests:
			return fmt.Errorf("%w: %s %s", store.ErrSkip, resp.Status, strings.Join(strings.Fields(string(words)), " "))
		}
		return errors.New(resp.Status)
	}
	return w
}

// door is the address of a service's door here; empty: the plan has none.
func (n *Node) door(s system.ServiceName) string {
	plan := n.view.Load().Plan
	if plan == nil {
		return ""
	}
	offset, ok := plan.Door(s)
	if !ok {
		return ""
	}
	return "http://" + n.address(offset)
}
