package l7

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"servent/route"
	"servent/system"
)

// Peer answers requests that another node's switch sent here. The header Servent-Instance names the
// instance; it is served here or not at all: never sent on, so that requests cannot go in circles. When
// the instance never saw the request the answer is 421 with the reason in Servent-Refused, or in
// Servent-Moved when it does not own the key by this node's view or its own; when its answer broke 502 with the
// reason in Servent-Broken: then the other node decides.
func (s *Switch) Peer() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := system.InstanceID(r.Header.Get(headerInstance))
		name, _, err := id.Split()
		if err != nil || len(r.Header[headerInstance]) != 1 {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("want one header %s: SERVICE/NUMBER, have %q", headerInstance, r.Header[headerInstance]), "")
			return
		}
		k, err := s.owns(r, name, id)
		if err != nil {
			w.Header().Set(headerMoved, words(err))
			refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("%s does not own the key: %v", id, err), "")
			return
		}
		x := s.exchange(w, r, false)
		x.keyed = k
		if r.Header.Get(headerContinue) != "" {
			x.header.Del("Expect") // the other node's own
			x.waits = true
		}
		if err := x.body(); err != nil {
			refuse(w, misreadAs(err), err.Error(), "")
			return
		}
		defer x.end()
		in := route.Instance{ID: id, Node: s.o.Self, Local: true}
		v, err := x.here(r.Context(), in)
		if v != answered && v != misread {
			x.abandon()
		}
		switch v {
		case refused:
			if errors.Is(err, errMoved) {
				w.Header().Set(headerMoved, strings.TrimPrefix(words(err), errMoved.Error()+": "))
			} else {
				w.Header().Set(headerRefused, words(err))
			}
			refuse(w, http.StatusMisdirectedRequest, fmt.Sprintf("%s did not get the request: %v", id, err), "servent ps "+string(name))
		case broken:
			w.Header().Set(headerBroken, words(err))
			refuse(w, http.StatusBadGateway, fmt.Sprintf("%s did not answer: %v", id, err), "servent logs "+string(name))
		case severed:
			panic(http.ErrAbortHandler) // cut the connection, so that the other node sees it
		case misread:
			refuse(w, misreadAs(err), err.Error(), "")
		}
	})
}

// words makes an error fit for a header: printable, one line, never empty.
func words(err error) string {
	text := []byte(err.Error())
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = ' '
		}
	}
	return string(text)
}
