package asterisk

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/trust"
)

// StatusError is a refusal of Asterisk's.
type StatusError struct {
	Status  int // of HTTP
	Message string
	what    string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("asterisk: %s: %d %s", e.what, e.Status, e.Message)
}

// gone tells whether an error says that what was named is not there any more: a channel that hung up in
// between, a playback that was over.
func gone(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// channelGone tells whether an error says that a channel is not there any more. One that is to be added to a bridge is
// answered for by 400.
func channelGone(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && (e.Message == "Channel not found" || e.Message == "Provided channel was not found")
}

// api is ARI's requests. Its methods may be called from any goroutine.
type api struct {
	base     string
	user     string
	password string
	http     *http.Client
	events   *http.Client // its one connection waits for none of the others
	timeout  time.Duration
	patience time.Duration // how long Asterisk may be away before a request fails for it
	metrics  *metrics
}

// poolSize is the connections that there may be. Asterisk takes 100 where http.conf does not say otherwise (sessionlimit),
// and closes one more at once: without a bound, what all calls ask for after an absence would keep out even the events.
const poolSize = 64

func newAPI(cfg Config, m *metrics) (*api, error) {
	password, err := cfg.password()
	if err != nil {
		return nil, err
	}
	conf, err := tlsConfig(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{TLSClientConfig: conf, MaxIdleConns: poolSize, MaxIdleConnsPerHost: poolSize, MaxConnsPerHost: poolSize,
		IdleConnTimeout: 30 * time.Second, ResponseHeaderTimeout: cfg.Timeout}
	return &api{base: strings.TrimSuffix(cfg.URL, "/"), user: cfg.Username, password: password, timeout: cfg.Timeout,
		patience: cfg.LostAfter, metrics: m, http: &http.Client{Transport: t},
		events: &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}}, nil
}

func tlsConfig(caFile string) (*tls.Config, error) {
	if caFile == "" {
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	roots, err := trust.Roots(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, nil
}

// query is a request's parameters.
type query map[string]string

// tryAgain is the time between two attempts to reach an Asterisk that is away.
const tryAgain = 250 * time.Millisecond

// do sends a request and reads its answer into reply, which may be nil. While Asterisk cannot be reached it tries again,
// as long as ctx and Asterisk's calls last: what a call is about to do is done late then, and not left out. A request
// that came through without its answer is made twice, which has no second effect, since what it makes has a name.
func (a *api) do(ctx context.Context, method, path string, q query, body, reply any) error {
	for until := time.Now().Add(a.patience); ; {
		err := a.once(ctx, method, path, q, body, reply)
		if _, answered := errors.AsType[*StatusError](err); err == nil || answered || ctx.Err() != nil || time.Now().After(until) {
			return err
		}
		select {
		case <-time.After(tryAgain):
		case <-ctx.Done():
			return err
		}
	}
}

// once sends a request once. An order that were taken back on its way would be carried out all the same, perhaps after what
// is to undo it: so its answer is awaited, whatever ends meanwhile.
func (a *api) once(ctx context.Context, method, path string, q query, body, reply any) error {
	if method != http.MethodGet {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	what := method + " " + path
	req, err := a.request(ctx, method, path, q, body)
	if err != nil {
		return fmt.Errorf("asterisk: %s: %w", what, err)
	}
	start := time.Now()
	res, err := a.http.Do(req)
	a.metrics.request(method, time.Since(start), err == nil && res.StatusCode < 500)
	if err != nil {
		return fmt.Errorf("asterisk: %s: %w", what, err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20)) // read to its end, so that the connection serves again
	if err != nil {
		return fmt.Errorf("asterisk: %s: %w", what, err)
	}
	if res.StatusCode >= 300 {
		var refusal struct{ Message, Error string }
		_ = json.Unmarshal(text, &refusal) // a proxy's page has no message
		return &StatusError{Status: res.StatusCode, Message: refusal.Message + refusal.Error, what: what}
	}
	if reply == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, reply); err != nil {
		return fmt.Errorf("asterisk: %s: the answer does not read: %w", what, err)
	}
	return nil
}

func (a *api) request(ctx context.Context, method, path string, q query, body any) (*http.Request, error) {
	values := url.Values{}
	for name, value := range q {
		values.Set(name, value)
	}
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		payload = bytes.NewReader(b)
	}
	target := a.base + path
	if len(values) > 0 {
		target += "?" + values.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, payload)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(a.user, a.password)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

func (a *api) post(ctx context.Context, path string, q query, body any) error {
	return a.do(ctx, http.MethodPost, path, q, body, nil)
}

// del deletes; what is not there any more is deleted.
func (a *api) del(ctx context.Context, path string, q query) error {
	if err := a.do(ctx, http.MethodDelete, path, q, nil, nil); !gone(err) {
		return err
	}
	return nil
}

func (a *api) get(ctx context.Context, path string, q query, reply any) error {
	return a.do(ctx, http.MethodGet, path, q, nil, reply)
}
