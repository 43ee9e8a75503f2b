// Command visits is the web tier of a test: it counts visitors in Redis (RESP, redis.io/docs/reference/protocol-spec) at
// REDIS_HOST and says who it is.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, err := incr(net.JoinHostPort(os.Getenv("REDIS_HOST"), "6379"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		host, _ := os.Hostname()
		fmt.Fprintf(w, "visit %s, by %s", n, host)
	})
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":5000", nil))
	os.Exit(1)
}

func incr(at string) (string, error) {
	c, err := net.DialTimeout("tcp", at, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	fmt.Fprint(c, "*2\r\n$4\r\nINCR\r\n$6\r\nvisits\r\n")
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, ":") {
		return "", fmt.Errorf("redis says %q: %v", line, err)
	}
	return strings.TrimSpace(line[1:]), nil
}
