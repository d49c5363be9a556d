package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strings"
	"syscall"

	"github.com/hotline12345/gateway/cmd/hotline/internal/app"
	"github.com/hotline12345/gateway/cmd/hotline/internal/config"
)

// client talks to the running gateway over the unix socket in its data directory.
type client struct {
	http    http.Client
	socket  string
	missing []string // the gateways whose rows the answers lack, and why
}

func dial(o *options) (*client, error) {
	cfg, err := config.Load(o.config, o.sets)
	if err != nil {
		return nil, err
	}
	c := &client{socket: cfg.Socket()}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.socket)
	}}
	return c, nil
}

func (c *client) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, nil, into)
}

func (c *client) post(ctx context.Context, path string, body, into any) error {
	return c.do(ctx, http.MethodPost, path, body, into)
}

func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://gateway"+path, payload)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("no gateway runs at %s; start one with `hotline serve`, or name its data directory with --set data=DIR", c.socket)
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for _, m := range resp.Header.Values(app.MissingHeader) {
		if !slices.Contains(c.missing, m) {
			c.missing = append(c.missing, m)
		}
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(answer)))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// me is who acts, for the audit log: the user of the system.
func me() string {
	u, err := user.Current()
	if err != nil {
		return "cli"
	}
	return "cli." + u.Username
}
