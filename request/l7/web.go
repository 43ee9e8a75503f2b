package l7

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"servent/route"
)

// Web is the web door: the host and path of a request say which service answers. A request that no
// route takes gets 404 and a list of the routes.
func (s *Switch) Web() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := s.table()
		web, ok := t.Match(r.Host, r.URL.Path)
		switch {
		case ok:
			s.enter(w, r, func(t *route.Table) route.Target { return t.Door(web.Service) })
		case t.Generation == 0:
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%s has no plan yet", s.o.Self), "servent ps")
		default:
			notFound(w, r, t)
		}
	})
}

// notFound lists the routes, as a page for browsers and as text for everyone else.
func notFound(w http.ResponseWriter, r *http.Request, t *route.Table) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		w.WriteHeader(http.StatusNotFound)
		_ = page.Execute(w, struct { // a client that left needs no page
			Asked string
			Web   []route.Web
		}{r.Host + r.URL.Path, t.Web})
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusNotFound)
	var text strings.Builder
	fmt.Fprintf(&text, "servent: no route takes %s%s\n", r.Host, r.URL.EscapedPath())
	if len(t.Web) == 0 {
		text.WriteString("this system has no routes\n")
	}
	for i, web := range t.Web {
		if i == 0 {
			text.WriteString("routes:\n")
		}
		fmt.Fprintf(&text, "  %s  %s\n", web, web.Service)
	}
	text.WriteString("next: servent ps\n")
	_, _ = w.Write([]byte(text.String()))
}

var page = template.Must(template.New("404").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>No such route</title>
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem}td{padding-right:2rem}</style>
<h1>No such route</h1>
<p>No route of this system takes <code>{{.Asked}}</code>.</p>
{{if .Web}}<table>
<tr><th align="left">route<th align="left">service</tr>
{{range .Web}}<tr><td>{{if .Host}}<code>{{.}}</code>{{else}}<a href="{{.Path}}"><code>{{.}}</code></a>{{end}}<td>{{.Service}}</tr>
{{end}}</table>{{else}}<p>It has no routes at all.</p>{{end}}
</html>
`))
