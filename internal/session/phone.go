package session

import (
	"context"
	"errors"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// The feature codes that an agent dials on the phone.
const (
	codeLogin  = "*11" // then the staff number and the PIN, each ended with #
	codeReady  = "*12"
	codePause  = "*13"
	codeLogout = "*14"
)

// pauseByPhone is why an agent who dialled *13 is paused: one of the console's reasons, and none that the
// line itself gives and takes back, as it does for a phone that went and came.
const pauseByPhone = "break"

// phone serves a call from an agent's own phone: a feature code.
func (m *Manager) phone(leg call.Leg) {
	ctx := leg.Context()
	info := leg.Info()
	log := m.Log.With("call", info.ID, "extension", info.Extension)
	switch info.Called {
	case codeLogin, codeReady, codePause, codeLogout:
	default:
		if err := leg.Reject(ctx, call.CauseUnallocated); err != nil {
			log.Warn("reject failed", "err", err)
		}
		return
	}
	if err := leg.Answer(ctx); err != nil {
		log.Warn("answer failed", "err", err)
		return
	}
	pad := &keypad{keys: make(chan byte, 32), mode: keysRaw, danger: func(*errDanger) {}, told: func(call.Digit, bool) {}}
	reading := make(chan struct{})
	contain := func(f func() error) error { return m.contain(info.ID, f) }
	go func() {
		defer close(reading)
		_ = contain(func() error { pad.run(leg); return nil })
	}()
	v := &voice{leg: leg, pad: pad, contain: contain}
	prompt, err := m.feature(ctx, v, info)
	if err != nil {
		log.Info("the feature code was refused", "code", info.Called, "err", err)
		prompt = "agent_login_needed"
		if info.Called == codeLogin {
			prompt = "agent_login_failed"
		}
	}
	_ = v.Say(ctx, false, m.Prompts.Say("zh", prompt)...)
	if err := leg.Hangup(context.WithoutCancel(ctx), call.CauseNormal); err != nil && !errors.Is(err, call.ErrLegGone) {
		log.Warn("hang-up failed", "err", err)
	}
	<-reading
}

// feature carries a code out and returns the prompt that confirms it.
func (m *Manager) feature(ctx context.Context, v *voice, info call.Info) (prompt string, err error) {
	switch info.Called {
	case codeLogin:
		person, err := m.ask(ctx, v, "agent_ask_staff")
		if err != nil {
			return "", err
		}
		pin, err := m.ask(ctx, v, "agent_ask_pin")
		if err != nil {
			return "", err
		}
		return "agent_login_ok", m.Desk.Login(ctx, info.Extension, person, pin)
	case codeReady:
		return "agent_ready", m.Desk.Ready(ctx, info.Extension)
	case codePause:
		return "agent_paused", m.Desk.Pause(ctx, info.Extension, pauseByPhone)
	default:
		return "agent_logout_ok", m.Desk.Logout(ctx, info.Extension)
	}
}

func (m *Manager) ask(ctx context.Context, v *voice, prompt string) (string, error) {
	if err := v.Say(ctx, true, m.Prompts.Say("zh", prompt)...); err != nil {
		return "", err
	}
	return v.Collect(ctx, Collect{Max: 16, Terminator: '#', First: 10 * time.Second, Next: 5 * time.Second})
}
