// Package speechtest is a recogniser as a script: a server that speaks the protocol of vosk-server and hears what a test
// wants it to hear.
package speechtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// Vosk is a server.
type Vosk struct {
	URL string

	mu     sync.Mutex
	script Script
	faults []error
}

// Script is what the server does on one connection, after it got its configuration. Its error is the test's fault; that
// of a connection that ended is none.
type Script func(*Talk) error

// Talk is one connection.
type Talk struct {
	Rate int // that the client told

	ctx  context.Context
	conn *websocket.Conn
}

// NewVosk starts a server that ends with the test, which fails if a client broke the protocol.
func NewVosk(t *testing.T, script Script) *Vosk {
	v := &Vosk{script: script}
	s := httptest.NewServer(http.HandlerFunc(v.serve))
	v.URL = "ws" + strings.TrimPrefix(s.URL, "http")
	t.Cleanup(func() {
		s.Close()
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, err := range v.faults {
			t.Errorf("the client broke the protocol: %v", err)
		}
	})
	return v
}

// Does changes the script for the connections from now on.
func (v *Vosk) Does(script Script) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.script = script
}

func (v *Vosk) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		v.fault(err)
		return
	}
	defer func() { _ = conn.CloseNow() }()
	v.mu.Lock()
	script := v.script
	v.mu.Unlock()
	t := &Talk{ctx: r.Context(), conn: conn}
	if t.begin(v) == nil {
		v.fault(script(t))
	}
}

// fault keeps an error that is not the mere end of a connection.
func (v *Vosk) fault(err error) {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrEnded) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.faults = append(v.faults, err)
}

// ErrEnded is returned when the client has gone without a word.
var ErrEnded = errors.New("speechtest: the connection ended")

// begin takes the configuration, which comes as text. A client that only looks says nothing.
func (t *Talk) begin(v *Vosk) error {
	kind, b, err := t.conn.Read(t.ctx)
	if err != nil {
		return err
	}
	var m struct {
		Config struct {
			SampleRate int `json:"sample_rate"`
		} `json:"config"`
	}
	if err := json.Unmarshal(b, &m); kind != websocket.MessageText || err != nil || m.Config.SampleRate == 0 {
		err := fmt.Errorf("the first message is %q", b)
		v.fault(err)
		return err
	}
	t.Rate = m.Config.SampleRate
	return nil
}

// Sound is the next message of sound: signed 16-bit little-endian. It is io.EOF when the client said its end to the
// letter, and [ErrEnded] when it went without.
func (t *Talk) Sound() ([]byte, error) {
	kind, b, err := t.conn.Read(t.ctx)
	switch {
	case err != nil:
		return nil, ErrEnded
	case kind == websocket.MessageBinary && len(b)%2 == 0:
		return b, nil
	case string(b) == `{"eof" : 1}`:
		return nil, io.EOF
	}
	return nil, fmt.Errorf("%d bytes of kind %v are neither sound nor the end", len(b), kind)
}

// Answer sends a text.
func (t *Talk) Answer(text string) error {
	if t.conn.Write(t.ctx, websocket.MessageText, []byte(text)) != nil {
		return ErrEnded
	}
	return nil
}

// Partial and Final send a result; words are divided by blanks, as the server does it.
func (t *Talk) Partial(words string) error { return t.Answer(fmt.Sprintf(`{"partial" : %q}`, words)) }

// Final ends a sentence.
func (t *Talk) Final(words string) error {
	return t.Answer(fmt.Sprintf(`{"result" : [{"conf" : 1.0, "start" : 0.1, "end" : 0.5, "word" : "x"}], "text" : %q}`, words))
}

// Hears is a server that has heard the next of the sentences after every so many messages of sound, on each connection.
// The other messages are answered by an empty partial, as the server does it.
func Hears(every int, sentences ...string) Script {
	return func(t *Talk) error {
		sentences := sentences // of this connection
		for n := 1; ; n++ {
			if _, err := t.Sound(); err != nil {
				return err
			}
			said := t.Partial("")
			if len(sentences) > 0 && n%every == 0 {
				said = t.Final(sentences[0])
				sentences = sentences[1:]
			}
			if said != nil {
				return said
			}
		}
	}
}
