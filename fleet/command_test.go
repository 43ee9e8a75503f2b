package fleet

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"servent/blob"
	"servent/identity"
	"servent/system"
)

// commanded is a gate behind which a command answers with who asks, and another goes on until it is ended.
func commanded(t *testing.T) (*gate, *Door) {
	t.Helper()
	g, d := openWith(t, "fleet-x", func(d *Door) {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /v1/who", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, MemberFrom(r.Context()).String())
		})
		mux.HandleFunc("GET /v1/on", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "on\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		d.Commands, d.Blobs = mux, &blob.Store{Dir: t.TempDir()}
	})
	return g, d
}

// as is the member's way in.
func (g *gate) as(role identity.Role, node system.NodeID) (*Fleet, identity.Credential) {
	g.t.Helper()
	j, err := g.join(g.tokenFor(role, time.Minute), node)
	if err != nil {
		g.t.Fatal(err)
	}
	way, err := Reach(g.at, j.Credential)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(way.rt.(*http.Transport).CloseIdleConnections)
	return way, j.Credential
}

func (f *Fleet) ask(t *testing.T, path string) (int, string, *http.Response) {
	t.Helper()
	rt, base := f.Commands()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if path == "/v1/on" {
		return resp.StatusCode, "", resp
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp
}

// A node commands under its own name and sends bytes; an edge does neither, and that it tried is written down.
func TestCommands(t *testing.T) {
	g, d := commanded(t)
	node, _ := g.as(identity.Node, "b")
	if code, who, _ := node.ask(t, "/v1/who"); code != http.StatusOK || who != "spiffe://fleet-x/node/b" {
		t.Errorf("a node: %d %s", code, who)
	}
	if code, _, _ := node.ask(t, "/"); code != http.StatusNotFound {
		t.Errorf("a page: %d", code)
	}
	from := &blob.Store{Dir: t.TempDir()}
	digest, err := from.Put(strings.NewReader("some bytes"))
	if err != nil {
		t.Fatal(err)
	}
	edge, _ := g.as(identity.Edge, "e")
	if err := edge.Send(t.Context(), from, digest); err == nil || d.Blobs.Has(digest) {
		t.Errorf("bytes of an edge: %v", err)
	}
	if code, words, _ := edge.ask(t, "/v1/who"); code != http.StatusForbidden || !strings.Contains(words, ErrMayNot.Error()) || !strings.Contains(words, `"next"`) {
		t.Errorf("an edge: %d %s", code, words)
	}
	g.refusedWith(ErrMayNot.Error())
	for range 2 {
		if err := node.Send(t.Context(), from, digest); err != nil || !d.Blobs.Has(digest) {
			t.Errorf("bytes of a node: %v", err)
		}
	}
	put, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://fleet"+bytesPath+"sha256:"+strings.Repeat("0", 64), strings.NewReader("other bytes"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := node.rt.RoundTrip(put)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("bytes that are not what their name says: %d", resp.StatusCode)
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: identity.Pinned(identity.PinOf(g.ca.Certificate()))}}
	defer stranger.CloseIdleConnections()
	for _, path := range []string{commandPath + "/v1/who", bytesPath + string(digest)} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "https://"+g.at+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := stranger.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a certificate: %d", path, resp.StatusCode)
		}
	}
}

// Who is put out is cut off in the middle of a command, and gets no other.
func TestCommandsSevered(t *testing.T) {
	g, d := commanded(t)
	way, _ := g.as(identity.Node, "b")
	_, _, on := way.ask(t, "/v1/on")
	if err := Expel(t.Context(), g.cluster, "b"); err != nil {
		t.Fatal(err)
	}
	d.Sever("b")
	ended := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(on.Body)
		ended <- err
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("a command went on after its machine was put out")
	}
	if code, words, _ := way.ask(t, "/v1/who"); code != http.StatusForbidden || !strings.Contains(words, ErrOut.Error()) {
		t.Errorf("after it was put out: %d %s", code, words)
	}
}

// One machine cannot take all the door's room.
func TestCommandsBounded(t *testing.T) {
	g, _ := commanded(t)
	way, _ := g.as(identity.Node, "b")
	for range commandsMost {
		if code, _, _ := way.ask(t, "/v1/on"); code != http.StatusOK {
			t.Fatalf("a command: %d", code)
		}
	}
	if code, words, _ := way.ask(t, "/v1/who"); code != http.StatusTooManyRequests {
		t.Errorf("one too many: %d %s", code, words)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := Join(ctx, g.at, g.token(time.Minute), "c", "", nil); err != nil {
		t.Errorf("another joins meanwhile: %v", err)
	}
}
