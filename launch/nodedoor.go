package launch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"servent/admin"
	"servent/system"
)

// nodeDoor asks nodes over the link for what only they know. It implements [admin.Nodes].
type nodeDoor struct{ rt http.RoundTripper }

// Logs implements [admin.Nodes].
func (n *nodeDoor) Logs(ctx context.Context, id system.NodeID, q admin.LogQuery) (io.ReadCloser, error) {
	return n.ask(ctx, id, fmt.Sprintf("/v1/node/logs?of=%s&tail=%d&follow=%t", url.QueryEscape(q.Of), q.Tail, q.Follow))
}

// Meter implements [admin.Nodes].
func (n *nodeDoor) Meter(ctx context.Context, id system.NodeID) (m admin.NodeMeter, err error) {
	body, err := n.ask(ctx, id, "/v1/node/meter")
	if err != nil {
		return m, err
	}
	defer body.Close()
	return m, json.NewDecoder(body).Decode(&m)
}

// ask makes one request over the link, which encrypts by itself: to HTTP it is plain.
func (n *nodeDoor) ask(ctx context.Context, id system.NodeID, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(id)+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.rt.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", id, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // the status says enough
		return nil, fmt.Errorf("ask %s: %s: %s", id, resp.Status, bytes.TrimSpace(text))
	}
	return resp.Body, nil
}
