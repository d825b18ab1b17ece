package main

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"time"
)

// dial prepares to talk to the service at -url. It sends nothing yet.
func (t *tool) dial() (*remote, error) {
	u, err := url.Parse(t.url)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usage("-url is no URL such as https://pay.internal/admin/idem")
	}
	if strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") { // part of a password, most likely
		return nil, usage("-url has an @ behind the host; percent-encode / ? and # in a password, or give it in %s", authorizationVariable)
	}
	header, err := t.credentials()
	if err != nil {
		return nil, err
	}
	if u.User != nil && header.Get("Authorization") == "" {
		password, _ := u.User.Password()
		req := http.Request{Header: header}
		req.SetBasicAuth(u.User.Username(), password)
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute, // counting a large store takes its time
	}
	client := &http.Client{
		Transport: transport,
		// Another place would get the credentials.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &remote{base: u, client: client, header: header, redact: t.redact}, nil
}

// credentials are the headers for -url. Errors name no value.
func (t *tool) credentials() (http.Header, error) {
	header := http.Header{}
	if v := t.env(authorizationVariable); v != "" {
		if strings.ContainsAny(v, "\r\n") {
			return nil, usage("%s has a line break; it holds one header value", authorizationVariable)
		}
		header.Set("Authorization", v)
	}
	if t.headerFile == "" {
		return header, nil
	}
	f, err := os.Open(t.headerFile)
	if err != nil {
		return nil, failed(err, "reading -header-file")
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, usage("line %d of %s is no header; it must read Name: value", n, t.headerFile)
		}
		header.Set(textproto.CanonicalMIMEHeaderKey(name), strings.TrimSpace(value))
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, usage("%s has a line that is too long for a header", t.headerFile)
		}
		return nil, failed(err, "reading -header-file")
	}
	return header, nil
}
