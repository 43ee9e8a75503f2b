// Package console is the page of a running system: nodes, services, instances, where and why, live
// request rate and latency. It is static, lies in the binary and works without any network; all that it
// shows it asks of the admin door. It knows no Go type of Servent's: docs/admin-api.md is its contract.
package console

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed pages
var pages embed.FS

// Handler serves the pages. They may load nothing from elsewhere and be framed by nobody.
func Handler() http.Handler {
	sub, err := fs.Sub(pages, "pages")
	if err != nil {
		panic("console: the embedded folder is gone: " + err.Error())
	}
	files := http.FileServerFS(sub)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	})
}
