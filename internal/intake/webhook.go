package intake

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/hotline12345/gateway/internal/trust"
)

const maxReceipt = 64 << 10 // bytes of an answer

// webhook hands over by POST.
type webhook struct {
	o      *Outbox
	url    string
	sign   *standardwebhooks.Webhook
	client *http.Client
}

func newWebhook(o *Outbox, t Target) (*webhook, error) {
	secret, err := os.ReadFile(t.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("intake: %s: %w", t.Name, err)
	}
	sign, err := standardwebhooks.NewWebhook(strings.TrimSpace(string(secret)))
	if err != nil {
		return nil, fmt.Errorf("intake: %s: %s does not hold whsec_ and base64: %w", t.Name, t.SecretFile, err)
	}
	var roots *x509.CertPool // nil is that of the system
	if t.CAFile != "" {
		if roots, err = trust.Roots(t.CAFile); err != nil {
			return nil, fmt.Errorf("intake: %s: ca_file: %w", t.Name, err)
		}
	}
	networks, err := t.networks()
	if err != nil {
		return nil, fmt.Errorf("intake: %s: %w", t.Name, err)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: guard(networks)}
	return &webhook{o: o, url: t.URL, sign: sign, client: &http.Client{
		Timeout: t.Timeout,
		// A redirect would leave the address that was allowed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  nil,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    5 * time.Second,
			MaxResponseHeaderBytes: maxReceipt,
			MaxIdleConnsPerHost:    t.Parallel,
			IdleConnTimeout:        30 * time.Second,
			ForceAttemptHTTP2:      true,
		},
	}}, nil
}

// guard refuses addresses that a target may not be at. It looks at the address that is dialled, after
// the name was resolved, so that a name that changes its mind cannot pass.
func guard(networks []netip.Prefix) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("intake: %w", err)
		}
		if !allowed(ap.Addr().Unmap().WithZone(""), networks) {
			return fmt.Errorf("intake: the target resolves to %s, which its networks do not allow", ap.Addr())
		}
		return nil
	}
}

func allowed(a netip.Addr, networks []netip.Prefix) bool {
	for _, p := range networks {
		if p.Contains(a) {
			return true
		}
	}
	return len(networks) == 0 && a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

var sharedSpace = netip.MustParsePrefix("100.64.0.0/10") // carrier-grade NAT (RFC 6598)

func (w *webhook) send(ctx context.Context, e Event) error {
	body, err := w.body(e)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	now := time.Now()
	signature, err := w.sign.Sign(e.key(), now, body)
	if err != nil {
		return fmt.Errorf("intake: sign: %w", err)
	}
	req.Header.Set("Content-Type", event.ApplicationCloudEventsJSON)
	req.Header.Set(standardwebhooks.HeaderWebhookID, e.key())
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	res, err := w.client.Do(req)
	if err != nil {
		return lost(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxReceipt))
	if err != nil {
		return lost(err)
	}
	return check(res, answer, e)
}

func (w *webhook) body(e Event) ([]byte, error) {
	if err := w.o.addKey(&e); err != nil {
		return nil, err
	}
	if e.Recording != nil {
		r := *e.Recording
		r.URL = w.o.grants.url(r.ID, e.key(), time.Now())
		e.Recording = &r
	}
	return e.cloudEvent(w.o.cfg.Source)
}

func lost(err error) error {
	f := &failure{result: "error", err: fmt.Errorf("intake: %w", err)}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		f.result = "timeout"
	}
	return f
}

// check tells whether an answer is a receipt.
func check(res *http.Response, answer []byte, e Event) error {
	if res.StatusCode < 200 || res.StatusCode > 299 {
		f := &failure{result: "refused", err: fmt.Errorf("intake: the target answered %s", res.Status)}
		if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 && s < 1<<20 { // RFC 9110 section 10.2.3
			f.after = time.Duration(s) * time.Second
		}
		return f
	}
	if e.Recording == nil {
		return nil
	}
	var r struct {
		SHA256Sealed string `json:"sha256_sealed"`
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return &failure{result: "mismatch", err: fmt.Errorf("intake: the answer is no receipt: %w", err)}
	}
	if subtle.ConstantTimeCompare([]byte(r.SHA256Sealed), []byte(e.Recording.SHA256Sealed)) != 1 {
		return &failure{result: "mismatch", err: fmt.Errorf("intake: the receipt says sha256_sealed %q, the recording has %s",
			clip(r.SHA256Sealed), e.Recording.SHA256Sealed)}
	}
	return nil
}

func clip(s string) string { return s[:min(len(s), 64)] }
