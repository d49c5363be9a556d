package asterisk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/pion/rtp"

	"github.com/hotline12345/gateway/internal/call"
)

// tapRing is the packets that wait for a slow sink: 5 s of both tracks.
const tapRing = 500

// tap is a sink on a leg: for each track a snoop, joined with an externalMedia that sends here.
type tap struct {
	leg    *leg
	sink   call.AudioSink
	ring   chan heard
	tracks [2]*track
	ended  chan struct{} // closed when the sink was closed
	once   sync.Once
	stop   context.CancelFunc
}

// heard is one packet, or the gap that the ring's fullness made.
type heard struct {
	track   call.Track
	time    uint32
	payload []byte
	gap     bool
}

// track is the way of one direction from Asterisk to here.
type track struct {
	conn                *net.UDPConn
	bridge, snoop, side string
}

// Tap implements [call.Leg].
func (l *leg) Tap(sink call.AudioSink) (detach func(), err error) {
	l.mu.Lock()
	media := l.media
	l.mu.Unlock()
	switch {
	case l.ctx.Err() != nil:
		return nil, context.Cause(l.ctx)
	case !media:
		return nil, call.ErrNotAnswered
	}
	t := &tap{leg: l, sink: sink, ring: make(chan heard, tapRing), ended: make(chan struct{})}
	ctx, cancel := context.WithTimeout(l.ctx, goodbye)
	defer cancel()
	if err := t.open(ctx); err != nil {
		t.clear()
		return nil, l.cause(err)
	}
	live, stop := context.WithCancel(l.ctx)
	t.stop = stop
	l.sw.work.Go(func() { t.run(live) })
	return t.detach, nil
}

// open asks for both tracks at once: each takes several requests, and what is said meanwhile is not heard.
func (t *tap) open(ctx context.Context) error {
	var wg sync.WaitGroup
	var errs [2]error
	for i, spy := range []string{call.TrackIn: "in", call.TrackOut: "out"} {
		wg.Go(func() { t.tracks[i], errs[i] = t.leg.sw.track(ctx, t.leg.channel, spy) })
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// track makes the way of a direction. What was made before a failure is in it, to be cleared.
func (s *Switch) track(ctx context.Context, channel, spy string) (*track, error) {
	tr := &track{}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(s.cfg.MediaAddr)})
	if err != nil {
		return tr, fmt.Errorf("asterisk: media_addr: %w", err)
	}
	tr.conn = conn
	if tr.snoop, err = s.snoop(ctx, channel, query{"spy": spy}); err != nil {
		return tr, err
	}
	if tr.side, err = s.externalMedia(ctx, conn.LocalAddr().(*net.UDPAddr)); err != nil {
		return tr, err
	}
	tr.bridge = s.bridgeID()
	if err := s.makeBridge(ctx, tr.bridge, "tap"); err != nil {
		return tr, err
	}
	return tr, s.join(ctx, tr.bridge, tr.snoop, tr.side)
}

// run reads both tracks and feeds the sink until live ends.
func (t *tap) run(live context.Context) {
	var readers sync.WaitGroup
	for i, tr := range t.tracks {
		readers.Go(func() { t.read(tr.conn, call.Track(i)) })
	}
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		t.feed()
	}()
	<-live.Done()
	for _, tr := range t.tracks {
		_ = tr.conn.Close() // ends its reader
	}
	readers.Wait()
	close(t.ring)
	<-feeding
	t.sink.Close()
	close(t.ended)
	t.clear()
}

// read takes packets off the wire. It never waits for the sink.
func (t *tap) read(conn *net.UDPConn, track call.Track) {
	buf := make([]byte, 2048)
	lost := false
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		var h rtp.Header
		used, err := h.Unmarshal(buf[:n])
		if err != nil || h.PayloadType != 8 || used >= n {
			continue
		}
		p := heard{track: track, time: h.Timestamp, payload: append([]byte(nil), buf[used:n]...), gap: lost}
		select {
		case t.ring <- p:
			lost = false
		default:
			lost = true
			t.leg.sw.metrics.dropped.WithLabelValues("frame").Inc()
			t.leg.mu.Lock()
			t.leg.stats.SinkDropped++
			t.leg.mu.Unlock()
		}
	}
}

func (t *tap) feed() {
	for p := range t.ring {
		if p.gap {
			t.sink.Gap(p.track)
		}
		t.sink.Write(p.track, p.time, p.payload)
	}
}

// detach ends the tap; the sink is closed when it returns.
func (t *tap) detach() {
	t.stop()
	<-t.ended
}

// clear takes away in Asterisk what the tap made there.
func (t *tap) clear() {
	t.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye+time.Second)
		defer cancel()
		for _, tr := range t.tracks {
			if tr == nil {
				continue
			}
			if tr.conn != nil {
				_ = tr.conn.Close() // twice does no harm
			}
			for _, id := range []string{tr.snoop, tr.side} {
				if id != "" {
					t.leg.sw.dropSide(ctx, id)
				}
			}
			if tr.bridge != "" {
				t.leg.sw.dropBridge(ctx, tr.bridge)
			}
		}
	})
}
