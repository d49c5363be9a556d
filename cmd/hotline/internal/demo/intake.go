package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	gwintake "github.com/hotline12345/gateway/internal/intake"
	"github.com/hotline12345/gateway/internal/recording"
)

// maxBody bounds what case intake reads: an event, and a sealed recording.
const maxBody = 64 << 20

// intake is case intake: it takes events by webhook, checks who signed them, fetches the recording that
// an event grants, and answers with the hash of what it fetched.
type intake struct {
	log        *slog.Logger
	keyFile    string // the agency's
	secretFile string
	verify     *standardwebhooks.Webhook
	listener   net.Listener
	fetch      http.Client

	mu      sync.Mutex
	away    int
	refused map[string]int // tries while away, by the event's identity
	events  []*delivery    // in the order in which they came
	changed chan struct{}  // closed and made anew at each event
}

// delivery is an event as it came.
type delivery struct {
	ID    string // request.revision
	Type  string
	Event gwintake.Event
	Times int    // how often it came
	Hash  string // of the recording as fetched
	// Left and Right are the opened recording, A-law: the caller, and what the caller heard.
	Left, Right []byte
}

func newIntake(d *demo) (*intake, error) {
	secret := make([]byte, 32)
	rand.Read(secret) // never fails
	in := &intake{log: d.log, keyFile: d.cfg.AgencyKey(), secretFile: filepath.Join(d.cfg.Data, "demo-intake.secret"),
		fetch: http.Client{Timeout: 30 * time.Second}, refused: map[string]int{}, changed: make(chan struct{})}
	text := "whsec_" + base64.StdEncoding.EncodeToString(secret)
	if err := os.WriteFile(in.secretFile, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("demo: intake: %w", err)
	}
	var err error
	if in.verify, err = standardwebhooks.NewWebhook(text); err != nil {
		return nil, fmt.Errorf("demo: intake: %w", err)
	}
	if in.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("demo: intake: %w", err)
	}
	return in, nil
}

func (in *intake) url() string { return "http://" + in.listener.Addr().String() + "/events" }

// run serves until ctx ends.
func (in *intake) run(ctx context.Context) error {
	srv := &http.Server{Handler: http.HandlerFunc(in.serve), ReadHeaderTimeout: 5 * time.Second,
		ErrorLog: slog.NewLogLogger(in.log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(in.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("demo: intake: %w", err)
	}
	return nil
}

// leave makes case intake go away until the function that it returns is called; others may be keeping it
// away longer.
func (in *intake) leave() (back func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.away++
	return sync.OnceFunc(func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.away--
	})
}

func (in *intake) serve(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get(standardwebhooks.HeaderWebhookID)
	in.mu.Lock()
	away := in.away > 0
	if away {
		in.refused[id]++
		in.tell()
	}
	in.mu.Unlock()
	if away {
		panic(http.ErrAbortHandler) // the connection breaks: nobody is there
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = in.verify.Verify(body, r.Header)
	}
	if err != nil {
		in.log.Warn("case intake refused an event", "err", err)
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	hash, err := in.take(r.Context(), body)
	if err != nil {
		in.log.Warn("case intake could not take an event", "event", id, "err", err)
		http.Error(w, "not taken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"sha256_sealed": hash}) // the gateway went away
}

// take keeps an event, and returns the hash of its recording.
func (in *intake) take(ctx context.Context, body []byte) (string, error) {
	var e struct {
		ID   string         `json:"id"`
		Type string         `json:"type"`
		Data gwintake.Event `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return "", err
	}
	got := &delivery{ID: e.ID, Type: e.Type, Event: e.Data, Times: 1}
	if e.Data.Recording != nil {
		if err := in.open(ctx, got); err != nil {
			return "", err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.tell()
	for _, old := range in.events {
		if old.ID == got.ID {
			old.Times++
			return got.Hash, nil
		}
	}
	in.events = append(in.events, got)
	if n := len(in.events); n > 4*1000 { // a demo that goes on for days
		in.events = in.events[n-1000:]
	}
	return got.Hash, nil
}

// open fetches the recording of an event and opens it with the agency's key.
func (in *intake) open(ctx context.Context, got *delivery) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, got.Event.Recording.URL, nil)
	if err != nil {
		return err
	}
	res, err := in.fetch.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	sealed, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the recording: %s", res.Status)
	}
	sum := sha256.Sum256(sealed)
	got.Hash = hex.EncodeToString(sum[:])
	keys, err := recording.LoadIdentities(in.keyFile)
	if err != nil {
		in.log.Debug("the recording stays sealed: the agency's key is elsewhere", "err", err)
		return nil
	}
	var wav bytes.Buffer
	if err := recording.Decrypt(ctx, &wav, bytes.NewReader(sealed), got.Event.WrappedKey, keys...); err != nil {
		return err
	}
	got.Left, got.Right = channels(wav.Bytes())
	return nil
}

// channels takes the two channels out of a WAV file.
func channels(wav []byte) (left, right []byte) {
	at := bytes.Index(wav, []byte("data"))
	if at < 0 {
		return nil, nil
	}
	audio := wav[min(at+8, len(wav)):]
	for i := 0; i+1 < len(audio); i += 2 {
		left, right = append(left, audio[i]), append(right, audio[i+1])
	}
	return left, right
}

// tell wakes who waits; in.mu is held.
func (in *intake) tell() {
	close(in.changed)
	in.changed = make(chan struct{})
}

// await waits until done is true of what came; done is called with in.mu held.
func (in *intake) await(ctx context.Context, done func() bool) error {
	for {
		in.mu.Lock()
		ok, changed := done(), in.changed
		in.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// of are the events of a call and a type; in.mu is held.
func (in *intake) of(callID, kind string) (found []*delivery) {
	for _, e := range in.events {
		if e.Event.CallID == callID && e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}
