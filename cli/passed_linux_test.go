package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

const bySource = `name: sources
services:
  hits:
    ports: ["%s:80", "%s:81"]
    deploy: {replicas: 3}
    x-servent:
      process: [servent, example, counter]
      architecture: replicated
      switch: {by: %s, sticky: source}
`

// Who comes to a published port is known by his own address behind it, and so keeps his instance while others have another.
func TestClientsAddressIsPassedOn(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"request", "connection"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			ports := []string{free(t), free(t)}
			start(t, fmt.Sprintf(bySource, ports[0], ports[1], by))
			highest := 0
			for i := 2; i < 18; i++ {
				from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(i))}, Timeout: 5 * time.Second}
				c := &http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}, Timeout: 20 * time.Second}
				count := func(name, port string) (n int) {
					res, err := c.Post("http://127.0.0.1:"+port+"/c/"+name, "", nil)
					if err != nil {
						t.Fatal(err)
					}
					defer res.Body.Close()
					b, err := io.ReadAll(res.Body)
					if err == nil {
						n, err = strconv.Atoi(strings.TrimSpace(string(b)))
					}
					if err != nil {
						t.Fatal(err)
					}
					return n
				}
				for want := range 4 { // each instance counts by itself
					if got := count(fmt.Sprint("of-", i), ports[want%2]); got != want+1 {
						t.Errorf("127.0.0.%d: request %d is its instance's number %d: another one answered before", i, want+1, got)
					}
				}
				highest = max(highest, count("all", ports[0]))
			}
			if highest == 16 {
				t.Error("one instance answered all 16 clients")
			}
		})
	}
}
