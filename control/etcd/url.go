package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Scheme is how the address of an etcd that the user already has begins.
const Scheme = "etcd://"

// ParseURL reads etcd://HOST[:PORT][,HOST[:PORT]…][?prefix=/x/&ca=FILE&cert=FILE&key=FILE] and the files
// that it names. The port is 2379 and the prefix /servent/ by default. What leaves the machine is always
// TLS, checked against ca or the system's authorities; plain text is for loopback without a ca and cert.
func ParseURL(text string) (StoreOptions, error) {
	o, err := parseURL(text)
	if err != nil {
		return StoreOptions{}, fmt.Errorf("control %q: %w", text, err)
	}
	return o, nil
}

func parseURL(text string) (StoreOptions, error) {
	rest, ok := strings.CutPrefix(text, Scheme)
	if !ok {
		return StoreOptions{}, errors.New("want etcd://HOST:PORT")
	}
	hosts, query, _ := strings.Cut(rest, "?")
	words, err := url.ParseQuery(query)
	if err != nil {
		return StoreOptions{}, err
	}
	o := StoreOptions{Prefix: "/servent/"}
	secure := false
	for host := range strings.SplitSeq(strings.TrimSuffix(hosts, "/"), ",") {
		end, local, err := endpoint(host)
		if err != nil {
			return StoreOptions{}, err
		}
		o.Endpoints = append(o.Endpoints, end)
		secure = secure || !local
	}
	for word, values := range words {
		switch {
		case word != "prefix" && word != "ca" && word != "cert" && word != "key":
			return StoreOptions{}, fmt.Errorf("%s: want prefix, ca, cert or key", word)
		case len(values) > 1 || values[0] == "":
			return StoreOptions{}, fmt.Errorf("%s: want one value", word)
		}
	}
	if p := words.Get("prefix"); p != "" {
		o.Prefix = p
	}
	if secure || words.Has("ca") || words.Has("cert") || words.Has("key") {
		o.TLS, err = clientTLS(words.Get("ca"), words.Get("cert"), words.Get("key"))
	}
	return o, err
}

// endpoint adds the port and says whether the host is this machine.
func endpoint(host string) (end string, local bool, err error) {
	name, port := host, "2379"
	if strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']') {
		if name, port, err = net.SplitHostPort(host); err != nil {
			return "", false, fmt.Errorf("host %q: want HOST:PORT", host)
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok { // without a port
		name = strings.TrimSuffix(inner, "]")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", false, fmt.Errorf("host %q: port %q: want 1…65535", host, port)
	}
	ip, err := netip.ParseAddr(name)
	if ip.Zone() != "" || err != nil && (name == "" || strings.ContainsAny(name, "/:@[]% \t\n")) {
		return "", false, fmt.Errorf("host %q: want HOST:PORT", host)
	}
	return net.JoinHostPort(name, port), name == "localhost" || ip.IsLoopback(), nil
}

func clientTLS(ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ca: %s holds no certificate", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("cert and key: want both or none")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
