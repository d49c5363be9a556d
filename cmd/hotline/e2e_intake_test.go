package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/hotline12345/gateway/internal/intake"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/session"
)

// caseIntake is a receiver of hand-overs: it checks the signature, fetches the audio by the grant, and
// gives the receipt.
type caseIntake struct {
	t      *testing.T
	verify *standardwebhooks.Webhook
	server *httptest.Server
	sets   []string // that make a gateway hand over to it
	events chan delivery
}

// delivery is one event, with the sealed audio that was fetched for it.
type delivery struct {
	id     string
	event  intake.Event
	sealed []byte
}

func newCaseIntake(t *testing.T) *caseIntake {
	t.Helper()
	secret := "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	verify, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "intake.secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &caseIntake{t: t, verify: verify, events: make(chan delivery, 64)}
	c.server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.server.Close)
	c.sets = []string{fmt.Sprintf("intake.targets=[{name: cases, kind: webhook, url: %q, secret_file: %q, networks: [127.0.0.0/8]}]",
		c.server.URL, file)}
	return c
}

func (c *caseIntake) serve(w http.ResponseWriter, r *http.Request) {
	d, err := c.take(r)
	if err != nil { // also when the gateway leaves in the middle: it delivers again
		c.t.Logf("case intake: %v", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	receipt := map[string]string{}
	if d.event.Recording != nil {
		hash := sha256.Sum256(d.sealed)
		receipt["sha256_sealed"] = hex.EncodeToString(hash[:])
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(receipt)
	c.events <- d
}

func (c *caseIntake) take(r *http.Request) (d delivery, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return d, err
	}
	if err := c.verify.Verify(body, r.Header); err != nil {
		c.t.Errorf("case intake: the signature: %v", err)
		return d, err
	}
	var ce struct {
		ID   string       `json:"id"`
		Type string       `json:"type"`
		Data intake.Event `json:"data"`
	}
	if err := json.Unmarshal(body, &ce); err != nil {
		return d, err
	}
	d.id, d.event = ce.ID, ce.Data
	if d.event.Recording == nil {
		return d, nil
	}
	res, err := http.Get(d.event.Recording.URL)
	if err != nil {
		return d, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return d, fmt.Errorf("the grant %s gives %s", d.event.Recording.URL, res.Status)
	}
	d.sealed, err = io.ReadAll(res.Body)
	return d, err
}

// recorded waits for the recording of a call.
func (c *caseIntake) recorded() delivery {
	c.t.Helper()
	for {
		d := receiveIn(c.t, 30*time.Second, "case intake gets the recording", c.events)
		if d.event.Type == string(session.RequestRecorded) {
			return d
		}
	}
}

// open decrypts what was fetched with the agency's key: the caller's side and what the caller heard,
// 8,000 bytes of A-law a second each.
func (d delivery) open(t *testing.T, g *gateway) (left, right []byte) {
	t.Helper()
	if d.event.Recording == nil {
		t.Fatalf("event %s has no recording", d.id)
	}
	hash := sha256.Sum256(d.sealed)
	if got := hex.EncodeToString(hash[:]); got != d.event.Recording.SHA256Sealed {
		t.Fatalf("what was fetched has %s, the event says sha256_sealed %s", got, d.event.Recording.SHA256Sealed)
	}
	keys, err := recording.LoadIdentities(filepath.Join(g.data(), "keys", "agency.key"))
	if err != nil {
		t.Fatal(err)
	}
	var wav bytes.Buffer
	if err := recording.Decrypt(context.Background(), &wav, bytes.NewReader(d.sealed), d.event.WrappedKey, keys...); err != nil {
		t.Fatalf("the recording does not open: %v", err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), d.id+".wav"), wav.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return split(t, wav.Bytes())
}

// split takes a stereo A-law WAV apart.
func split(t *testing.T, wav []byte) (left, right []byte) {
	t.Helper()
	if len(wav) < 12 || string(wav[:4]) != "RIFF" {
		t.Fatal("no WAV file")
	}
	for b := wav[12:]; len(b) >= 8; {
		size := int(binary.LittleEndian.Uint32(b[4:]))
		body := b[8:min(len(b), 8+size)]
		switch string(b[:4]) {
		case "fmt ":
			if format, channels := binary.LittleEndian.Uint16(body), binary.LittleEndian.Uint16(body[2:]); format != 6 || channels != 2 {
				t.Fatalf("WAV format %d with %d channels, want A-law (6) with 2", format, channels)
			}
		case "data":
			for i := 0; i+1 < len(body); i += 2 {
				left, right = append(left, body[i]), append(right, body[i+1])
			}
			return left, right
		}
		b = b[min(len(b), 8+size+size&1):]
	}
	t.Fatal("the WAV file has no data")
	return nil, nil
}
