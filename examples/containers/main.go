// Command containers is the program of both images of the example: web answers visitors, store counts them, and check asks one
// of them, as an image without a shell does in its HEALTHCHECK. images makes the images, of the program itself.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "web":
		return http.ListenAndServe(":"+os.Getenv("PORT"), web())
	case len(args) == 2 && args[0] == "store":
		return http.ListenAndServe(":"+os.Getenv("PORT"), &store{file: filepath.Join(args[1], "visits")})
	case len(args) == 2 && args[0] == "check":
		_, err := ask(http.MethodGet, args[1])
		return err
	case len(args) == 2 && args[0] == "images":
		return build(args[1])
	}
	return errors.New("want one of: images DIR, web, store DIR, check URL")
}

var client = http.Client{Timeout: 5 * time.Second}

func ask(method, url string) (string, error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, res.Status)
	}
	return strings.TrimSpace(string(b)), err
}

func web() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, text string, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprintln(w, text)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		n, err := ask(http.MethodPost, "http://store:7000/") // by its name and port in the Compose file's network
		host, _ := os.Hostname()
		answer(w, "visit "+n+", by "+host, err)
	})
	mux.HandleFunc("GET /out", func(w http.ResponseWriter, r *http.Request) {
		text, err := ask(http.MethodGet, r.FormValue("url"))
		answer(w, text, err)
	})
	mux.HandleFunc("GET /eat", func(http.ResponseWriter, *http.Request) {
		for kept := [][]byte{}; ; {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
		}
	})
	return mux
}

// store counts in a file.
type store struct {
	mu   sync.Mutex // guards the file
	file string
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte("0"), nil
	}
	var n int
	if err == nil {
		n, err = strconv.Atoi(string(b))
	}
	if err == nil && r.Method == http.MethodPost {
		n++
		if err = os.WriteFile(s.file+".new", []byte(strconv.Itoa(n)), 0o644); err == nil {
			err = os.Rename(s.file+".new", s.file)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, n)
}
