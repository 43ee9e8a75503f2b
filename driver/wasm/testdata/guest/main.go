// The guest of the tests: a CGI program by the standard library.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
)

func main() {
	err := cgi.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			os.Exit(2)
		case "/file":
			if _, err := os.ReadFile("/etc/passwd"); err != nil {
				fmt.Fprintln(w, "no file")
			}
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Guest", "go")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, "%s %s %s %s %s %s %s proxy=%s body=%s\n", r.Method, r.URL.Path, r.URL.RawQuery, r.Host,
			r.Header.Get("Content-Type"), r.Header.Get("X-User"), os.Getenv("GREETING"), os.Getenv("HTTP_PROXY"), body)
	}))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
