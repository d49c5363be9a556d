package media

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Params is what offer and answer agreed on, seen from the gateway.
type Params struct {
	Addr netip.AddrPort // the peer's address as described
	RTCP netip.AddrPort // its RTCP address (RFC 3605); zero: the port above Addr's
	Mux  bool           // RTP and RTCP on one port (RFC 5761)

	Codec       call.Codec
	PayloadType uint8 // that the peer wants to receive: 8 or 0, or a dynamic one
	// DTMFType is the payload type of telephone-events that we send, RecvDTMFType the one that the
	// peer sends. 0 or less: none.
	DTMFType     int
	RecvDTMFType int
	Ptime        time.Duration // of what we send, 10 ms to 60 ms in steps of 10; 0 is 20 ms

	// Send and Recv are false while the party, or the line, holds the call (RFC 3264 section 8.4).
	Send, Recv bool
	// Allowed says which addresses the media may move to when it does not come from Addr; nil is none.
	Allowed func(netip.Addr) bool
}

func (p *Params) check() error {
	var errs []error
	if p.Codec != call.PCMA && p.Codec != call.PCMU {
		errs = append(errs, fmt.Errorf("media: codec %q is not spoken here", p.Codec))
	}
	if p.Send && !p.Addr.IsValid() {
		errs = append(errs, errors.New("media: no address to send to"))
	}
	if p.Ptime%(10*time.Millisecond) != 0 || p.Ptime < 0 || p.Ptime > 60*time.Millisecond {
		errs = append(errs, fmt.Errorf("media: a packet time of %s is not 10 to 60 ms", p.Ptime))
	}
	return errors.Join(errs...)
}

// Session is the media of one leg.
//
// Its methods may be called from any goroutine, but not from within OnDigit: that callback runs in
// the path of the packets.
type Session struct {
	e         *Engine
	log       *slog.Logger
	opts      SessionOptions
	rtp, rtcp socket
	port      int
	wheel     *wheel
	watched   []watched      // its ports, where a watcher reads them
	readers   sync.WaitGroup // where none does

	rx      receiver
	tx      sender
	digits  digits
	route   atomic.Pointer[route]
	bridge  atomic.Pointer[Bridge]
	reports reporting

	sinkDropped atomic.Uint64
	taps        taps
	onTimeout   atomic.Pointer[func()]
	sending     chan struct{} // one SendDigits at a time

	closing sync.Once
	done    chan struct{}
}

func newSession(e *Engine, opts SessionOptions, rtp, rtcp socket) *Session {
	s := &Session{
		e:       e,
		log:     e.log.With("call", opts.ID),
		opts:    opts,
		rtp:     rtp,
		rtcp:    rtcp,
		port:    localPort(rtp),
		sending: make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	s.tx.start(s)
	return s
}

// LocalPort is the RTP port; RTCP is the next.
func (s *Session) LocalPort() int { return s.port }

// Remote sets the peer's side after each offer and answer, and opens the two seconds in which the
// media may move once to another allowed source.
func (s *Session) Remote(p Params) error {
	if err := p.check(); err != nil {
		return err
	}
	if s.isClosed() {
		return ErrClosed
	}
	p.Addr, p.RTCP = unmap(p.Addr), unmap(p.RTCP)
	if p.Ptime == 0 {
		p.Ptime = 20 * time.Millisecond
	}
	now := time.Now()
	dst := s.rx.remote(&p, now)
	s.tx.remote(&p, dst, now)
	s.reports.remote(&p)
	if b := s.bridge.Load(); b != nil {
		b.rewire()
	}
	return nil
}

// OnDigit sets who is told of the party's keys, each once, in order. fn must not block and must not
// call the session.
func (s *Session) OnDigit(fn func(call.Digit)) { s.digits.listen(fn) }

// InfoDigit takes a key that came by SIP INFO (RFC 6086). One that RFC 4733 told already is dropped.
func (s *Session) InfoDigit(key byte) {
	if call.ValidDigit(key) {
		s.digits.press(key, call.DigitInfo, time.Now())
	}
}

// OnTimeout sets who is told, once and in a goroutine of its own, that the peer has sent nothing for
// the set time while it should.
func (s *Session) OnTimeout(fn func()) { s.onTimeout.Store(&fn) }

// Stats is the quality of the media so far.
func (s *Session) Stats() call.MediaStats {
	st := s.rx.stats()
	s.tx.addStats(&st)
	s.reports.addStats(&st)
	st.SinkDropped = s.sinkDropped.Load()
	return st
}

// Close ends the session: it leaves its bridge, ends what plays, detaches the taps and frees the
// ports. It waits for the readers, and not for sinks, which [Engine.Run] waits for. A second call
// does nothing.
func (s *Session) Close() {
	s.closing.Do(func() {
		close(s.done)
		if b := s.bridge.Load(); b != nil {
			b.Remove(s)
		}
		s.wheel.remove(s)
		s.bye()
		s.tx.stop()
		for _, x := range s.watched {
			x.remove()
		}
		_ = s.rtp.Close() // nothing is lost with them
		_ = s.rtcp.Close()
		s.readers.Wait()
		s.taps.close()
		s.e.release(s.port, s.rx.heardAny())
		s.e.forget(s)
	})
}

func (s *Session) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// tick paces the session, from its wheel.
func (s *Session) tick(due time.Time, out *outbox) {
	if s.isClosed() {
		return
	}
	s.watch(due)
	s.report(due)
	s.tx.tick(due, out)
	s.tx.rouseTaps()
}

// watch tells of a peer that has fallen silent.
func (s *Session) watch(now time.Time) {
	fn := s.onTimeout.Load()
	if fn == nil || !s.rx.silentTooLong(now, &s.e.cfg) {
		return
	}
	s.e.metrics.timeouts.Inc()
	s.e.work.Go(func() {
		defer s.e.caught(s.opts.ID, "OnTimeout")
		(*fn)()
	})
}

// usable tells whether media can be sent to an address; 0.0.0.0 was a hold once (RFC 3264 section 8.4).
func usable(a netip.AddrPort) bool { return a.IsValid() && !a.Addr().IsUnspecified() && a.Port() != 0 }

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }
