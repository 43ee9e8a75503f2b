package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/admin"
	"servent/console"
)

const watched = `name: watched
services:
  hits:
    deploy: {replicas: 2}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      route: /*
      switch: {by: request}
x-servent:
  nodes:
    node: {count: 3}
`

// The console in a real browser: it shows what is there, the rate under load, what a killed program and a
// killed node change, and how all is well again; without an error, legible in light and dark and on a telephone.
func TestConsole(t *testing.T) {
	t.Parallel()
	p := openPage(t)
	w := start(t, watched)
	p.visit(ask[map[string]string](w, "console")["url"])
	const service, row = `document.querySelector("[data-service=hits]")`, `document.querySelector('[data-instance="%s"]')`

	p.until("the system", `document.title === "watched · Servent" && document.querySelector("#status").textContent === "settled"`)
	p.until("its service", service+`.textContent.includes("2 of 2 ready")`)
	p.until("its nodes", `document.querySelectorAll("[data-node] [data-state=up]").length === 3`)
	p.until("its instances", `document.querySelectorAll("[data-instance] [data-state=ready]").length === 2`)
	p.until("events, each with its subject", `[...document.querySelectorAll("#events li")].filter((e) => /^(hits|node)/.test(e.querySelector("b").textContent)).length > 4`)
	p.is("the key is out of sight", `location.href.includes("token")`, false)
	p.is("an event without a subject", `[...document.querySelectorAll("#events b")].some((b) => !b.textContent)`, false)
	p.is("what is kept is drawn in place", fmt.Sprintf(row, "hits/1")+`.mine = true`, true)

	l := offer("http://"+w.door("node-1", "hits")+"/c/a", 50)
	p.until("the rate rise", service+`.querySelector(".rate").textContent > 10`)
	p.until("latencies", `["p50", "p99"].every((c) => /^[\d.]+ (µs|ms|s)$/.test(`+service+`.querySelector("." + c).textContent))`)
	p.until("the curve", service+`.querySelector(".line").getAttribute("d").length > 10`)
	p.until("where the load goes", `[...document.querySelectorAll("[data-node] .quiet")].some((e) => /[1-9]\S* requests/.test(e.textContent))`)
	p.is("an instance is drawn in place", fmt.Sprintf(row, "hits/1")+`.mine`, true)

	hurt := w.ps()[slices.IndexFunc(w.ps(), func(in admin.InstanceState) bool { return in.Node != "node-1" })]
	killProcess(t, hurt.Pid)
	p.until("a killed program start again", fmt.Sprintf(row, hurt.Instance)+`.querySelector("[data-label=restarts]").textContent > 0`)
	killProcess(t, w.node(hurt.Node).Pid)
	card := fmt.Sprintf(`document.querySelector('[data-node="%s"]')`, hurt.Node)
	p.until("a killed node", card+`.classList.contains("gone") && `+card+`.textContent.includes("comes back")`)
	p.until("the event, with its subject", fmt.Sprintf(`[...document.querySelectorAll("#events li")].some((e) => e.querySelector("b").textContent === %q && e.textContent.includes("gone"))`, hurt.Node))
	p.until("all well again", `document.querySelectorAll("[data-node] header [data-state=up]").length === 3 && document.querySelector("#status").textContent === "settled"`)
	l.end(t)

	for _, scheme := range []string{"light", "dark"} {
		p.call("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
		p.is(scheme+": text that is hard to read", pale, "")
	}
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": true}, nil)
	p.is("a telephone has to scroll sideways", `document.documentElement.scrollWidth > innerWidth`, false)
	if len(p.errors) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(p.errors, "\n"))
	}
	w.down()
	p.until("the end", `document.querySelector("#status").textContent === "not connected" && document.querySelector("#trouble").textContent.includes("servent console")`)
}

// What the page computes itself.
func TestConsoleFigures(t *testing.T) {
	t.Parallel()
	p := openPage(t)
	pages := httptest.NewServer(console.Handler())
	defer pages.Close()
	p.call("Page.navigate", map[string]any{"url": pages.URL + "/icon.svg"}, nil)
	p.until("the pages", `location.pathname === "/icon.svg"`)
	const rates, drawing = `import("/rates.js").then((m) => `, `import("/draw.js").then((m) => `
	for expr, want := range map[string]any{
		rates + `m.quantile([[100, 50], [200, 49], [300, 1]], 0.5))`:  100.0,
		rates + `m.quantile([[100, 50], [200, 49], [300, 1]], 0.99))`: 200.0,
		rates + `m.quantile([[100, 50], [200, 49], [300, 1]], 1))`:    300.0,
		rates + `m.quantile([], 0.99))`:                               nil,
		rates + `JSON.stringify(m.minus({requests: 5, errors: 1, refused: 2, latency: [[1, 3], [2, 2]]}, {requests: 3, errors: 0, refused: 1, latency: [[1, 3]]})))`: `{"requests":3,"errors":2,"bins":[[2,2]]}`,
		rates + `JSON.stringify(m.minus({requests: 2, errors: 0, refused: 0, latency: [[9, 2]]}, {requests: 3, errors: 1, refused: 0, latency: [[1, 3]]})))`:         `{"requests":2,"errors":0,"bins":[[9,2]]}`, // the node was started anew
		rates + `{ const r = new m.Rates(), row = (n) => ({service: "a", instance: "a/1", requests: n, errors: 0, refused: 0, latency: [[7, n]]});
			for (const s of [0, 1, 2]) r.take([{node: "x", at: "2026-01-01T00:00:0" + s + "Z", rows: [row(s * 10)]}, {node: "y", at: "2026-01-01T00:00:0" + 2 * s + "Z", rows: [row(s * 10)]}, {node: "z", rows: [], error: "away"}]);
			const f = r.service("a"); return [f.requests, f.p99, f.history.length, r.instance("a/1").requests, r.silent("z"), r.service("b").requests].join(" "); })`: "15 7 2 15 does not say what it counts: away 0", // 10/s and 5/s
		drawing + `[0, 999, 1000, 9940, 99400, 999400, 999500, 12e6, null].map(m.latency).join(" "))`: "0 µs 999 µs 1.0 ms 9.9 ms 99 ms 999 ms 1.0 s 12 s –",
		drawing + `[0, 9.94, 9.96, 1234.5].map(m.number).join(" "))`:                                  "0.0 9.9 10 1235",
		drawing + `m.age("0001-01-01T00:00:00Z"))`:                                                    "–",
		drawing + `m.el("b", {}, "<i>").innerHTML)`:                                                   "&lt;i&gt;",
	} {
		p.is(expr, expr, want)
	}
}

// pale names the texts whose contrast to what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
const pale = `(() => {
	const paper = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
	const rgb = (colour) => { paper.clearRect(0, 0, 1, 1); paper.fillStyle = colour; paper.fillRect(0, 0, 1, 1); return [...paper.getImageData(0, 0, 1, 1).data]; };
	const light = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const behind = (e) => { const c = rgb(getComputedStyle(e).backgroundColor); return c[3] ? c : behind(e.parentElement); };
	const bad = new Set();
	for (const e of document.body.querySelectorAll("*")) {
		if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
		const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
		if ((a + .05) / (b + .05) < 4.5) bad.add(e.textContent + " " + ((a + .05) / (b + .05)).toFixed(1));
	}
	return [...bad].join("; ");
})()`

// killProcess ends a process without asking it.
func killProcess(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to kill: %d", pid)
	}
	proc, err := os.FindProcess(pid)
	if err == nil {
		err = proc.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// page is one page of a browser, spoken to by its DevTools protocol over a pipe: JSON, each ended by a
// zero byte.
type page struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	id      int
	session string
	errors  []string // what the browser complained about
}

// openPage starts a browser with an empty profile, or skips the test where there is none.
func openPage(t *testing.T) *page {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no browser is tested on Windows: os/exec passes no pipe there")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" && os.Getenv("CI") == "true" {
		t.Fatal("no browser: install chromium")
	} else if path == "" {
		t.Skip("no browser: install chromium to test the console")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "about:blank")
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	p := &page{t: t, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		p.session = ""
		_ = p.try("Browser.close", nil, nil) // it may be gone
		in.Close()
		_ = cmd.Wait()
		cancel()
		out.Close()
	})
	var made struct{ TargetID, SessionID string }
	p.call("Target.createTarget", map[string]any{"url": "about:blank"}, &made)
	p.call("Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &made)
	p.session = made.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		p.call(domain+".enable", nil, nil)
	}
	return p
}

func (p *page) call(method string, params, result any) {
	p.t.Helper()
	if err := p.try(method, params, result); err != nil {
		p.t.Fatalf("%s: %v\n%s", method, err, strings.Join(p.errors, "\n"))
	}
}

// try makes one call and keeps the complaints that come before its answer.
func (p *page) try(method string, params, result any) error {
	if params == nil {
		params = struct{}{}
	}
	p.id++
	msg := map[string]any{"id": p.id, "method": method, "params": params}
	if p.session != "" {
		msg["sessionId"] = p.session
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return err
	}
	if _, err := p.in.Write(append(b, 0)); err != nil {
		return err
	}
	for {
		text, err := p.out.ReadBytes(0)
		if err != nil {
			return fmt.Errorf("the browser is gone: %w", err)
		}
		var m struct {
			ID     int
			Method string
			Params struct {
				Type             string
				Entry            struct{ Level, Text, URL string }
				Args             json.RawMessage
				ExceptionDetails json.RawMessage
			}
			Result json.RawMessage
			Error  *struct{ Message string }
		}
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			return err
		}
		switch {
		case m.Method == "Log.entryAdded" && m.Params.Entry.Level != "info" && m.Params.Entry.Level != "verbose":
			p.errors = append(p.errors, fmt.Sprintf("%s: %s %s", m.Params.Entry.Level, m.Params.Entry.Text, m.Params.Entry.URL))
		case m.Method == "Runtime.exceptionThrown":
			p.errors = append(p.errors, "exception: "+string(m.Params.ExceptionDetails))
		case m.Method == "Runtime.consoleAPICalled":
			p.errors = append(p.errors, "console: "+string(m.Params.Args))
		case m.ID == p.id && m.Error != nil:
			return errors.New(m.Error.Message)
		case m.ID == p.id && result != nil:
			return json.Unmarshal(m.Result, result)
		case m.ID == p.id:
			return nil
		}
	}
}

func (p *page) visit(url string) {
	p.t.Helper()
	p.call("Page.navigate", map[string]any{"url": url}, nil)
	p.until("the page", `document.readyState === "complete" && document.querySelector("#name")`)
}

// eval returns what an expression, or its promise, gives in the page.
func (p *page) eval(expr string) any {
	p.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expr, "awaitPromise": true, "returnByValue": true}, &r)
	if r.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s", expr, r.ExceptionDetails)
	}
	return r.Result.Value
}

// is checks what an expression gives now.
func (p *page) is(what, expr string, want any) {
	p.t.Helper()
	if got := p.eval(expr); got != want {
		p.t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// until waits, in the page, for an expression to hold; while it throws it does not.
func (p *page) until(what, expr string) {
	p.t.Helper()
	const within = 30 * time.Second
	poll := fmt.Sprintf(`new Promise((done) => {
		const late = Date.now() + %d, look = () => {
			let holds = false;
			try { holds = !!(%s); } catch { }
			if (holds || Date.now() > late) done(holds); else setTimeout(look, 30);
		};
		look();
	})`, within.Milliseconds(), expr)
	var r struct{ Result struct{ Value bool } }
	if err := p.try("Runtime.evaluate", map[string]any{"expression": poll, "awaitPromise": true, "returnByValue": true}, &r); err != nil || !r.Result.Value {
		p.t.Fatalf("the page does not show %s within %v (%v)\n%v\n%s", what, within, err, p.eval("document.body.innerText"), strings.Join(p.errors, "\n"))
	}
}
