package inside

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"servent/driver"
	"servent/driver/drivertest"
	"servent/system"
)

func spec(*testing.T, int) driver.Spec { return driver.Spec{Instance: "web/1"} }

func TestFilesConform(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		dir := folder(t, map[string]string{"hello.txt": "hello"})
		return drivertest.Subject{Driver: Files(), Spec: spec, Path: "/hello.txt", Says: "hello",
			Good: filesOf(dir),
			Bad: map[string]driver.Artifact{
				"no bundle":    filesOf(""),
				"nowhere":      filesOf(dir + "/nowhere"),
				"a file":       filesOf(dir + "/hello.txt"),
				"another kind": {Dir: dir, Software: system.Software{Kind: system.Process}},
			}}
	})
}

func TestOriginConforms(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Subject {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) }))
		t.Cleanup(server.Close)
		return drivertest.Subject{Driver: Origin(), Spec: spec, Path: "/x", Says: "hello",
			Good: originOf(server.URL),
			Bad: map[string]driver.Artifact{
				"empty":        originOf(""),
				"no host":      originOf("http:///x"),
				"no scheme":    originOf("127.0.0.1:80"),
				"ftp":          originOf("ftp://127.0.0.1/"),
				"not a URL":    originOf("http://[::1"),
				"query":        originOf("http://127.0.0.1/?a=b"),
				"password":     originOf("http://me:secret@127.0.0.1/"),
				"another kind": {Software: system.Software{Kind: system.Files, From: server.URL}},
			}}
	})
}
