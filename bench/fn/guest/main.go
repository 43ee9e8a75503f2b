// Command guest is the function that is measured: one answer as a CGI program (RFC 3875), or with the word serve a server of the same answer, or with
// the word watchdog a server that starts the program for each request, as OpenFaaS's classic watchdog does.
package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
)

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	case len(os.Args) == 2 && os.Args[1] == "watchdog":
		serve(func(w http.ResponseWriter, r *http.Request) {
			cmd := exec.CommandContext(r.Context(), os.Args[0])
			cmd.Stdin = r.Body
			out, err := cmd.Output()
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			_, body, _ := bytes.Cut(out, []byte("\n\n"))
			_, _ = w.Write(body) // a client that is gone is no trouble
		})
	default:
		fmt.Print("Content-Type: text/plain\n\nhello")
	}
}

// serve answers at $PORT, or at a port that it prints, until its parent ends it.
func serve(answer http.HandlerFunc) {
	at := "127.0.0.1:0"
	if port := os.Getenv("PORT"); port != "" {
		at = ":" + port
	}
	ln, err := net.Listen("tcp", at)
	if err == nil {
		fmt.Println(ln.Addr())
		err = http.Serve(ln, answer)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
