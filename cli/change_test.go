package cli

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A function is called for each change of a key with a prefix, also of those that were made while nobody took them.
func TestChangesCall(t *testing.T) {
	t.Parallel()
	w := start(t, `
name: carts
services:
  store: {x-servent: {builtin: kv, route: /kv/*}}
  job:
    x-servent:
      process: [servent, example, counter]
      architecture: function
      scale: {idle: 1h}
      on: [{change: store, prefix: carts/, request: POST /c/changes}]
      route: /*
x-servent: {nodes: {node: {count: 2}}}
`)
	base, _, _ := strings.Cut("http://"+w.published("store"), "/kv")
	put := func(key string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, base+"/kv/"+strings.ReplaceAll(key, "/", "%2F"), strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("PUT %s: %s", key, resp.Status)
		}
	}
	called := func(want int) func() error {
		return func() error {
			resp, err := http.Get(base + "/c/changes")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var n int
			if _, err := fmt.Fscan(resp.Body, &n); err != nil || n != want {
				return errStillFew(n)
			}
			return nil
		}
	}
	for i := range 20 {
		put("carts/" + strconv.Itoa(i))
	}
	for i := range 5 {
		put("others/" + strconv.Itoa(i))
	}
	w.heals(30*time.Second, called(20))
	home := ""
	for _, in := range w.state().Instances {
		if in.Service == "store" {
			home = string(in.Node)
		}
	}
	if out, err := w.run("restart", home); err != nil {
		t.Fatalf("restart: %v\n%s", err, out)
	}
	w.heals(30*time.Second, func() error { // the counter may have been on that node, and begun anew
		put("carts/again")
		resp, err := http.Get(base + "/c/changes")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var n int
		if _, err := fmt.Fscan(resp.Body, &n); err != nil || n < 1 {
			return errStillFew(n)
		}
		return nil
	})
}
