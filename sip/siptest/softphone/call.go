package softphone

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/sdp"
	"github.com/hotline12345/gateway/sip/siptest"
)

// goodbye bounds a BYE.
const goodbye = 5 * time.Second

// Call is one call of a phone.
type Call struct {
	From, To string    // the numbers as they stood in the INVITE
	Token    string    // the gateway's name of the call, on an agent's phone
	At       time.Time // when it began

	phone  *Phone
	dialog *dialog.Call
	sound  *media.Session
	sdp    *sdp.Local
	mu     sync.Mutex // guards sdp
	ears   *ears
}

// newCall opens the sound of a call.
func (p *Phone) newCall(codecs []call.Codec) (*Call, error) {
	sound, err := p.engine.NewSession(media.SessionOptions{ID: "softphone"})
	if err != nil {
		return nil, fmt.Errorf("softphone: %w", err)
	}
	c := &Call{phone: p, sound: sound, At: time.Now(), ears: &ears{},
		sdp: &sdp.Local{Codecs: codecs, Addr: addrPort(p.engine, sound)}}
	if _, err := sound.Tap(c.ears); err != nil {
		sound.Close()
		return nil, fmt.Errorf("softphone: %w", err)
	}
	return c, nil
}

// attach gives the call its dialog.
func (c *Call) attach(d *dialog.Call) {
	c.dialog = d
	d.OnOffer(c.reoffered)
}

// live closes the sound at the end of the dialog.
func (c *Call) live() { context.AfterFunc(c.dialog.Context(), c.sound.Close) }

// reoffered answers an offer in mid-call.
func (c *Call) reoffered(offer []byte) ([]byte, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if offer == nil {
		return c.sdp.Offer(sdp.SendRecv), 200
	}
	answer, r, err := c.sdp.Answer(offer)
	if err == nil {
		err = c.sound.Remote(params(r))
	}
	if err != nil {
		return nil, 488
	}
	return answer, 200
}

// Context ends with the call; its cause is a [*call.Ended].
func (c *Call) Context() context.Context { return c.dialog.Context() }

// Ring sends 180 on a call that came in.
func (c *Call) Ring() error { return c.dialog.Provisional(c.Context(), 180, nil) }

// Answer takes a call that came in, and returns after the ACK.
func (c *Call) Answer(ctx context.Context) error {
	c.mu.Lock()
	answer, r, err := c.sdp.Answer(c.dialog.Request().Body())
	c.mu.Unlock()
	if err != nil {
		return err
	}
	if err := c.sound.Remote(params(r)); err != nil {
		return err
	}
	return c.dialog.Answer(ctx, answer)
}

// Reject refuses a call that came in.
func (c *Call) Reject(status int) error { return c.dialog.Reject(c.Context(), status, "") }

// Hangup ends the call, and returns when the gateway has confirmed it.
func (c *Call) Hangup() error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	return c.dialog.Bye(ctx, call.CauseNormal)
}

// Tone speaks a sine of hz until ctx or the call ends, or another sound replaces it.
func (c *Call) Tone(ctx context.Context, hz int) error {
	pcm := siptest.Tone(float64(hz), time.Second)
	return c.sound.Loop(ctx, &call.Clip{ID: "tone", PCMA: siptest.ALaw(pcm), PCMU: siptest.MuLaw(pcm)})
}

// Say speaks clips and returns when the last was heard.
func (c *Call) Say(ctx context.Context, clips ...*call.Clip) error {
	return c.sound.Play(ctx, clips...)
}

// Press sends keys as telephone-events (RFC 4733), and returns when the last was sent.
func (c *Call) Press(ctx context.Context, keys string) error { return c.sound.SendDigits(ctx, keys) }

// PressInfo sends keys by INFO (application/dtmf-relay), each after the answer to the one before.
func (c *Call) PressInfo(ctx context.Context, keys string) error {
	for _, k := range keys {
		body := fmt.Sprintf("Signal=%c\r\nDuration=160\r\n", k)
		if err := c.dialog.Info(ctx, "application/dtmf-relay", []byte(body)); err != nil {
			return err
		}
	}
	return nil
}

// Hold puts the other side on hold by a re-INVITE with sendonly (RFC 3264 section 8.4); false takes it
// back.
func (c *Call) Hold(ctx context.Context, on bool) error {
	direction := sdp.SendRecv
	if on {
		direction = sdp.SendOnly
	}
	c.mu.Lock()
	offer := c.sdp.Offer(direction)
	c.mu.Unlock()
	answer, err := c.dialog.ReInvite(ctx, offer)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, err := c.sdp.Accept(answer)
	if err != nil {
		return err
	}
	return c.sound.Remote(params(r))
}

// Heard is what came from the other side so far, in A-law: the last two minutes of it.
func (c *Call) Heard() []byte { return c.ears.all() }

// Forget drops what was heard so far.
func (c *Call) Forget() { c.ears.forget() }

// Stats is the quality of the call's sound.
func (c *Call) Stats() call.MediaStats { return c.sound.Stats() }
