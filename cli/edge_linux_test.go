package cli

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/blob"
	"servent/control"
	"servent/control/remote"
	"servent/identity"
	"servent/link"
	"servent/system"
)

const vaultFile = `
name: shop
services:
  vault:
    secrets: [key]
    environment: {PASSWORD: xyzzy}
    x-servent:
      files: ./vault
      architecture: single
      route: /vault/*
`

const edgeSecrets = `
secrets:
  key: {file: ./key}
  pin: {file: ./pin}
`

const kioskService = `  kiosk:
    deploy: {placement: {constraints: ["node.role == edge"]}}
    secrets: [pin]
    x-servent:
      files: ./kiosk
      architecture: single
      route: /kiosk/*
`

// thief is who has all that an edge's machine keeps, and asks by it for more.
type thief struct {
	*testing.T
	link *link.Secure
	http *link.Transport
}

func newThief(t *testing.T, edge *machine) *thief {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(edge.dir, ".servent", "member.json"))
	if err != nil {
		t.Fatal(err)
	}
	var stolen struct {
		Credential identity.Credential `json:"credential"`
		Servers    []struct {
			Node system.NodeID `json:"node"`
			Link string        `json:"link"`
		} `json:"servers"`
	}
	if err := json.Unmarshal(b, &stolen); err != nil {
		t.Fatal(err)
	}
	keep, err := identity.NewKeeper(stolen.Credential)
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(link.Options{Identity: keep, Resolve: func(id system.NodeID) (link.Address, bool) {
		for _, s := range stolen.Servers {
			if s.Node == id {
				return link.Address{Host: s.Link}, true
			}
		}
		return link.Address{}, false
	}})
	h := link.HTTP2Transport(l)
	t.Cleanup(h.CloseIdleConnections)
	return &thief{t, l, h}
}

func (th *thief) get(url string) (int, string) {
	th.Helper()
	ctx, cancel := context.WithTimeout(th.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		th.Fatal(err)
	}
	resp, err := th.http.RoundTrip(req)
	if err != nil {
		th.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		th.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// An edge runs what names it, and is reached. Whoever has its key reads its own part of the plan and the bytes that are named there: not another
// node's secret, not what else there is, no service of another node; it commands nothing, and all that it tried is written down.
func TestEdge(t *testing.T) {
	t.Parallel()
	a, e := &machine{world: &world{t: t, dir: t.TempDir()}, host: "127.0.0.1"}, &machine{world: &world{t: t, dir: t.TempDir()}, host: "127.0.0.1"}
	a.write("compose.yaml", vaultFile+edgeSecrets)
	a.write("vault/vault/index.html", "of the vault")
	a.write("kiosk/kiosk/index.html", "of the kiosk")
	a.write("key", "the key of the vault")
	a.write("pin", "the pin of the kiosk")
	digest := func(text string) system.Digest {
		d, err := (&blob.Store{Dir: t.TempDir()}).Put(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	key, pin := digest("the key of the vault"), digest("the pin of the kiosk")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := ln.Addr().String()
	ln.Close()
	t.Cleanup(a.end)
	if out, err := a.run("up", "-d", "--listen", door, "--as", "a"); err != nil {
		t.Fatalf("up: %v\n%s\n%s", err, out, a.logs())
	}
	if out, err := a.run("token", "--role", "king"); err == nil || !strings.Contains(out, "want the role server, node or edge") {
		t.Errorf("a token for a king: %v: %s", err, out)
	}
	e.join(append(a.token("--role", "edge"), "--as", "e")...)
	a.until("joined", time.Minute, nodeUp("e"))
	a.write("compose.yaml", vaultFile+kioskService+edgeSecrets)
	if out, err := a.run("up", "-d"); err != nil || !strings.Contains(out, "kiosk/1  e  ready") {
		t.Fatalf("up with a service for the edge: %v\n%s\n%s\n%s", err, out, a.logs(), e.logs())
	}
	for _, in := range a.state().Instances {
		if in.Service == "vault" && in.Node != "a" {
			t.Errorf("%s is on %s", in.Instance, in.Node)
		}
	}
	url := ""
	for _, p := range a.state().Published {
		if p.Service == "kiosk" {
			url = strings.TrimSuffix(p.URL, "/kiosk/")
		}
	}
	if got := fetch(t, url+"/kiosk/"); got != "of the kiosk" {
		t.Errorf("the edge's service, asked for at the first machine: %q", got)
	}
	if has := (&blob.Store{Dir: filepath.Join(e.dir, ".servent", "blobs")}); !has.Has(pin) || has.Has(key) {
		t.Errorf("the edge has its own secret: %t; the other's: %t", has.Has(pin), has.Has(key))
	}

	th := newThief(t, e)
	if code, body := th.get("http://a/v1/blob/" + string(pin)); code != http.StatusOK || body != "the pin of the kiosk" {
		t.Errorf("its own secret: %d %s", code, body)
	}
	for _, path := range []string{"/v1/blob/" + string(key), "/v1/node/logs?tail=9&of=vault", "/v1/node/meter"} {
		if code, body := th.get("http://a" + path); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	store := remote.New(remote.Options{Servers: func() []system.NodeID { return []system.NodeID{"a"} }, Transport: th.http})
	kvs, _, err := store.Range(t.Context(), "")
	if err != nil || len(kvs) == 0 {
		t.Errorf("what an edge reads: %d keys, %v", len(kvs), err)
	}
	for _, kv := range kvs {
		if text := kv.Key + string(kv.Value); strings.Contains(text, "vault") || strings.Contains(text, "xyzzy") || strings.Contains(text, string(key)) {
			t.Errorf("an edge read %s", text)
		}
	}
	if _, _, err := store.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: control.PrefixJoin + "x", Value: []byte("{}")}}}); err == nil {
		t.Error("an edge invited somebody")
	}
	for _, proto := range []link.Proto{link.HTTP, link.Tunnel, link.Datagram, link.Alive} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		conn, err := th.link.Dial(ctx, "a", proto)
		if err == nil { // in TLS 1.3 a refusal shows with the first read
			_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err = conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				t.Errorf("%s of an edge is open: %v", proto, err)
			}
			conn.Close()
		}
		cancel()
	}
	for _, verb := range []string{"ps", "scale vault=2", "token"} {
		if out, err := e.run(strings.Fields(verb)...); err == nil || !strings.Contains(out, "commands nothing") || !strings.Contains(out, "next: ") {
			t.Errorf("%s at an edge: %v: %s", verb, err, out)
		}
	}
	audit, err := a.run("audit", "--refused")
	if err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"GET /v1/blob ", string(key), "GET /v1/node/logs", "POST /v1/control/commit", "connect http/1.1", "connect servent-l4", "GET /v1/state", "POST /v1/token"} {
		if !strings.Contains(audit, words) {
			t.Errorf("nothing of %q was written down:\n%s", words, audit)
		}
	}
	if strings.Contains(audit, string(pin)) || !strings.Contains(audit, "/edge/e") {
		t.Errorf("written down as refused:\n%s", audit)
	}
}
