package intake

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/hotline12345/gateway/internal/session"
)

// Event is the data of a CloudEvent to case intake.
type Event struct {
	Type      string         `json:"type"`
	RequestID string         `json:"request_id"`
	Revision  int            `json:"revision"` // a higher one takes the place of a lower one
	CallID    string         `json:"call_id"`
	At        time.Time      `json:"at"`
	Urgent    string         `json:"urgent,omitempty"` // why it is urgent
	Facts     map[string]any `json:"facts"`            // no personal data
	// Sealed is personal data in JSON: sealed to the recording's key, or to the agency when the call
	// was not recorded.
	Sealed    []byte     `json:"sealed,omitempty"`
	Evidence  string     `json:"evidence"` // recorded, partial or none
	Recording *Recording `json:"recording,omitempty"`
	// WrappedKey is the recording's age identity, encrypted with age to the agency. It opens Sealed
	// and the recording. It is added at delivery and never spooled: to destroy it is deletion.
	WrappedKey []byte `json:"wrapped_key,omitempty"`
}

// Recording is a sealed recording as an event names it.
type Recording struct {
	ID           string  `json:"id"`
	SHA256Sealed string  `json:"sha256_sealed"` // of the sealed file: what the receipt echoes
	SHA256Audio  string  `json:"sha256_audio"`  // of the G.711 inside
	Bytes        int64   `json:"bytes"`
	Seconds      float64 `json:"seconds"`
	Partial      bool    `json:"partial"`        // some audio is missing
	URL          string  `json:"url,omitempty"`  // to a webhook: GET it while the grant in it lasts
	File         string  `json:"file,omitempty"` // to a directory: beside the event
}

// ErrEvent is the answer to a hand-over that cannot be one.
var ErrEvent = errors.New("intake: not an event")

var safeID = regexp.MustCompile(`^[0-9A-Za-z_-]{1,64}$`) // it names files

func newEvent(h session.HandOver) (Event, error) {
	switch {
	case !safeID.MatchString(h.RequestID):
		return Event{}, fmt.Errorf("%w: the request's identity is %q", ErrEvent, h.RequestID)
	case h.Revision < 1 || h.Revision > 999_999:
		return Event{}, fmt.Errorf("%w: revision %d", ErrEvent, h.Revision)
	case h.Recording != nil && !safeID.MatchString(h.Recording.ID):
		return Event{}, fmt.Errorf("%w: the recording's identity is %q", ErrEvent, h.Recording.ID)
	}
	e := Event{Type: string(h.Type), RequestID: h.RequestID, Revision: h.Revision, CallID: h.CallID, At: h.At,
		Urgent: h.Urgent, Facts: h.Facts, Sealed: h.Sealed, Evidence: h.Evidence}
	if e.Facts == nil {
		e.Facts = map[string]any{}
	}
	if r := h.Recording; r != nil {
		e.Recording = &Recording{ID: r.ID, SHA256Sealed: r.SHA256Sealed, SHA256Audio: r.SHA256Audio,
			Bytes: r.Bytes, Seconds: r.Duration.Seconds(), Partial: r.Partial}
	}
	return e, nil
}

// key is the event's identity and the receiver's idempotency key.
func (e Event) key() string { return key(e.RequestID, e.Revision) }

func key(request string, revision int) string { return fmt.Sprintf("%s.%d", request, revision) }

// cloudEvent is the event on the wire: CloudEvents 1.0, JSON event format, structured mode.
func (e Event) cloudEvent(source string) ([]byte, error) {
	ce := event.New(event.CloudEventsVersionV1)
	ce.SetID(e.key())
	ce.SetSource(source)
	ce.SetType(e.Type)
	ce.SetSubject(e.RequestID)
	ce.SetTime(e.At)
	if err := ce.SetData(event.ApplicationJSON, e); err != nil {
		return nil, fmt.Errorf("intake: encode: %w", err)
	}
	b, err := json.Marshal(ce)
	if err != nil {
		return nil, fmt.Errorf("intake: encode: %w", err)
	}
	return b, nil
}
