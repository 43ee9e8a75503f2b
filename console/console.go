// Package console is the page of a running system: nodes, services, instances, where and why, live
// request rate and latency, events. It is static, lies in the binary and works without any network; all
// that it shows it asks of the admin door. It knows no Go type of Servent's: docs/admin-api.md is its
// contract. Start at pages/app.js.
package console

import (
	"embed"
	"io/fs"
	"net/http"
)

//go:embed pages
var pages embed.FS

// policy: the pages load nothing from elsewhere, talk to nobody else, and are framed by nobody.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// Handler serves the pages.
func Handler() http.Handler {
	sub, err := fs.Sub(pages, "pages")
	if err != nil {
		panic("console: the embedded folder is gone: " + err.Error())
	}
	files := http.FileServerFS(sub)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "pages are read only", http.StatusMethodNotAllowed)
			return
		}
		files.ServeHTTP(w, r)
	})
}
