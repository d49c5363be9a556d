package media

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
)

// ear is a sink that keeps what it hears; it is slow while gate is shut.
type ear struct {
	gate   chan struct{}
	writes [2][]heard
	closed int
}

type heard struct {
	ts  uint32
	gap bool
	b   []byte
}

func (e *ear) Write(track call.Track, ts uint32, b []byte) {
	if e.gate != nil {
		<-e.gate
	}
	w := &e.writes[track]
	if n := len(*w); n > 0 && (*w)[n-1].b == nil {
		(*w)[n-1].ts, (*w)[n-1].b = ts, bytes.Clone(b)
		return
	}
	*w = append(*w, heard{ts: ts, b: bytes.Clone(b)})
}

func (e *ear) Gap(track call.Track) { e.writes[track] = append(e.writes[track], heard{gap: true}) }
func (e *ear) Close()               { e.closed++ }

// sound is a track's bytes; every frame must follow the one before but at a gap.
func (e *ear) sound(t *testing.T, track call.Track) (all []byte, gaps int) {
	t.Helper()
	for i, w := range e.writes[track] {
		if w.gap {
			gaps++
		} else if i > 0 {
			if last := e.writes[track][i-1]; w.ts != last.ts+uint32(len(last.b)) {
				t.Errorf("track %d: %d follows %d without a gap", track, w.ts, last.ts)
			}
		}
		all = append(all, w.b...)
	}
	return all, gaps
}

// One tap on the caller's leg hears the whole call, in A-law whatever the wire speaks.
func TestTap(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		b, s, p := memLegs(t, e, n, 2, pcmu)
		p[0].h.pt = 0
		join(t, b, s[0], call.Talk, false)
		join(t, b, s[1], call.Talk, true)
		sink := new(ear)
		detach, err := s[0].Tap(sink)
		if err != nil {
			t.Fatal(err)
		}
		speakAll(p, time.Second)
		p[0].h.ssrc++ // the caller's source begins anew
		p[0].h.ts += 12345
		speakAll(p, time.Second)
		detach()
		detach()
		if sink.closed != 1 {
			t.Errorf("closed %d times", sink.closed)
		}
		kept := len(sink.writes[call.TrackIn])
		speakAll(p, 100*time.Millisecond)
		if len(sink.writes[call.TrackIn]) != kept {
			t.Error("a detached sink hears")
		}
		in, gaps := sink.sound(t, call.TrackIn)
		if len(in) != 2*call.Rate || gaps != 2 { // one at the answer, one at the new source
			t.Errorf("%d bytes in, %d gaps", len(in), gaps)
		}
		out, _ := sink.sound(t, call.TrackOut)
		if len(out) < 2*call.Rate-frame || len(out) > 2*call.Rate+10*frame {
			t.Errorf("%d bytes out", len(out))
		}
		for track, want := range map[int]float64{0: 440, 1: 700} {
			var pcm []float64
			for _, b := range [][]byte{in[:call.Rate], out[:call.Rate]}[track] {
				pcm = append(pcm, float64(g711.ALawToLinear[b]))
			}
			wantLevels(t, "tap", pcm, map[float64]bool{440: want == 440, 700: want == 700})
		}
		if dropped := s[0].Stats().SinkDropped; dropped > 0 {
			t.Errorf("%d dropped", dropped)
		}
	})
}

// A sink that does not keep up loses frames, is told of the gap, and holds up nothing.
func TestTapOverflow(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		_, s, p := memLegs(t, e, n, 1)
		sink := &ear{gate: make(chan struct{})}
		detach, err := s[0].Tap(sink)
		if err != nil {
			t.Fatal(err)
		}
		speakAll(p, 5*time.Second)
		hears(t, "the party", p[0], aLaw)
		if d := s[0].Stats().SinkDropped; d < 200 || d > 300 {
			t.Errorf("%d frames dropped", d)
		}
		close(sink.gate)
		synctest.Wait()
		speakAll(p, time.Second)
		detach()
		for track := range sink.writes {
			if _, gaps := sink.sound(t, call.Track(track)); gaps == 0 {
				t.Errorf("track %d: no gap", track)
			}
		}
	})
}

// badEar panics: it loses its tap, and the call goes on.
type badEar struct{ ear }

func (*badEar) Write(call.Track, uint32, []byte) { panic("a bad sink") }

func TestTapLimits(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, e *Engine, n *memNet) {
		_, s, p := memLegs(t, e, n, 1)
		bad := new(badEar)
		detach, err := s[0].Tap(bad)
		if err != nil {
			t.Fatal(err)
		}
		speakAll(p, time.Second)
		detach()
		if bad.closed != 1 {
			t.Error("the bad sink was not closed")
		}
		sinks := make([]*ear, maxTaps)
		for i := range sinks {
			sinks[i] = new(ear)
			if _, err := s[0].Tap(sinks[i]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s[0].Tap(new(ear)); !errors.Is(err, ErrTooManyTaps) {
			t.Errorf("one too many: %v", err)
		}
		s[0].Close()
		synctest.Wait()
		for i, sink := range sinks {
			if sink.closed != 1 {
				t.Errorf("sink %d closed %d times at the leg's end", i, sink.closed)
			}
		}
		if _, err := s[0].Tap(new(ear)); !errors.Is(err, ErrClosed) {
			t.Errorf("a closed leg: %v", err)
		}
	})
}
