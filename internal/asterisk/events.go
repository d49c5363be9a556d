package asterisk

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/CyCoreSystems/ari/v5"
	"github.com/coder/websocket"
)

// The rhythm of the event connection. Asterisk sends nothing while nothing happens, so a connection that
// died silently is found by pings.
const (
	pingEvery   = 2 * time.Second
	pingTimeout = 3 * time.Second
	firstRetry  = 100 * time.Millisecond
	lastRetry   = 500 * time.Millisecond // until it is connected the dialplan has new callers to itself
	maxCompare  = 10 * time.Second       // for some hundred channels of a busy Asterisk
	maxEvent    = 1 << 20                // bytes
)

// listen follows Asterisk's events until ctx ends, connecting anew whenever the connection is lost.
func (s *Switch) listen(ctx context.Context) {
	retry := firstRetry
	away, never := time.Now(), true
	for ctx.Err() == nil {
		err := s.connection(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.up.Swap(false) || never {
			never = false
			s.metrics.connected.Set(0)
			s.log.Warn("asterisk: no events; calls go on there, and are compared when it is back", "err", err)
			away, retry = time.Now(), firstRetry
		}
		if time.Since(away) > s.cfg.LostAfter {
			s.lose(func(string) bool { return true })
		}
		select {
		case <-time.After(retry):
		case <-ctx.Done():
		}
		retry = min(2*retry, lastRetry)
	}
}

// connection is one event connection, from its dial to its loss.
func (s *Switch) connection(ctx context.Context) error {
	dialCtx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	target := strings.Replace(s.api.base, "http", "ws", 1) + "/events?" + url.Values{"app": {s.app}}.Encode()
	credentials := base64.StdEncoding.EncodeToString([]byte(s.api.user + ":" + s.api.password))
	conn, _, err := websocket.Dial(dialCtx, target, &websocket.DialOptions{
		HTTPClient: s.api.events, HTTPHeader: http.Header{"Authorization": {"Basic " + credentials}}})
	if err != nil {
		return fmt.Errorf("asterisk: events: %w", err)
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxEvent)
	// What happened while there was no connection is read before anything that happens from now on is told.
	if err := s.compare(ctx); err != nil {
		return err
	}
	s.metrics.connected.Set(1)
	s.up.Store(true)
	s.ready()
	ctx, stop := context.WithCancelCause(ctx)
	pinging := make(chan struct{})
	go func() {
		defer close(pinging)
		stop(ping(ctx, conn)) // who does not read yet hears no answer to it
	}()
	defer func() { stop(nil); <-pinging }()
	return s.read(ctx, conn)
}

// compare reconciles within a time.
func (s *Switch) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, maxCompare)
	defer cancel()
	return s.reconcile(ctx)
}

func ping(ctx context.Context, conn *websocket.Conn) error {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		once, cancel := context.WithTimeout(ctx, pingTimeout)
		err := conn.Ping(once)
		cancel()
		if err != nil {
			return fmt.Errorf("asterisk: no answer to a ping: %w", err)
		}
	}
}

func (s *Switch) read(ctx context.Context, conn *websocket.Conn) error {
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		e, err := ari.DecodeEvent(data)
		if err != nil || e == nil { // newer Asterisks send what the decoder does not know
			s.metrics.events.WithLabelValues("unknown").Inc()
			continue
		}
		s.metrics.events.WithLabelValues("handled").Inc()
		s.dispatch(e)
	}
}

// dispatch hands an event to the leg that it is about. No handler blocks, so each leg sees its events in
// their order.
func (s *Switch) dispatch(e ari.Event) {
	switch e := e.(type) {
	case *ari.StasisStart:
		s.started(e)
	case *ari.StasisEnd:
		s.with(e.Channel.ID, func(l *leg) { l.hungUp(0) })
		s.left(e.Channel.ID)
	case *ari.ChannelHangupRequest:
		s.with(e.Channel.ID, func(l *leg) { l.hungUp(e.Cause) })
	case *ari.ChannelDestroyed:
		s.with(e.Channel.ID, func(l *leg) { l.hungUp(e.Cause) })
		s.left(e.Channel.ID)
	case *ari.ChannelStateChange:
		s.with(e.Channel.ID, func(l *leg) { l.changed(e.Channel.State) })
	case *ari.ChannelDtmfReceived:
		s.with(e.Channel.ID, func(l *leg) { l.pressed(e.Digit) })
	case *ari.ChannelHold:
		s.with(e.Channel.ID, func(l *leg) { l.held(true) })
	case *ari.ChannelUnhold:
		s.with(e.Channel.ID, func(l *leg) { l.held(false) })
	case *ari.Dial:
		s.with(e.Peer.ID, func(l *leg) { l.dialling(e.Dialstatus) })
	case *ari.PlaybackFinished:
		if e.Playback.State == "failed" {
			s.failed.Store(e.Playback.ID)
		}
		s.played(e.Playback.ID)
	}
}
