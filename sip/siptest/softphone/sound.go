package softphone

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/sdp"
)

// keep is how much of what was heard is kept: two minutes.
const keep = 120 * call.Rate

// ears keep what a phone hears. They are a [call.AudioSink].
type ears struct {
	mu    sync.Mutex
	heard []byte
}

// Write implements [call.AudioSink].
func (e *ears) Write(track call.Track, _ uint32, payload []byte) {
	if track != call.TrackIn {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, payload...)
	if len(e.heard) > 2*keep {
		e.heard = slices.Clone(e.heard[len(e.heard)-keep:])
	}
}

// Gap implements [call.AudioSink].
func (e *ears) Gap(call.Track) {}

// Close implements [call.AudioSink].
func (e *ears) Close() {}

func (e *ears) all() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard[max(0, len(e.heard)-keep):])
}

func (e *ears) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = nil
}

func addrPort(e *media.Engine, s *media.Session) netip.AddrPort {
	return netip.AddrPortFrom(e.AdvertiseIP(), uint16(s.LocalPort()))
}

// params is what a description means for the media.
func params(r sdp.Remote) media.Params {
	return media.Params{Addr: r.Addr, RTCP: r.RTCP, Mux: r.Mux, Codec: r.Codec, PayloadType: r.PayloadType,
		DTMFType: r.EventType, RecvDTMFType: r.RecvEventType, Ptime: r.PTime, Send: r.Send, Recv: r.Recv}
}
