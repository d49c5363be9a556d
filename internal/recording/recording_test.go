package recording

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("HOTLINE_TEST_RECORD_IN"); dir != "" {
		recordUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

var testFacts = session.RecordingFacts{CallID: "01JNB00000000000000000CALL", Trunk: "loopback", Called: "12345", Node: "n1"}

// desk is a recorder that runs, and the agency that can open what it keeps.
type desk struct {
	*Recorder
	agency age.Identity
	cfg    Config
	stop   func()
}

func newDesk(t *testing.T, change func(*Config, *Deps)) *desk {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Dir = t.TempDir()
	cfg.Recipients = []string{id.Recipient().String()}
	d := &desk{agency: id}
	deps := Deps{Space: roomy}
	if change != nil {
		change(&cfg, &deps)
	}
	d.cfg = cfg
	if d.Recorder, err = New(cfg, deps); err != nil {
		t.Fatal(err)
	}
	return d
}

func roomy(string) (uint64, uint64, error) { return 9, 10, nil }

// run starts Run; stop waits for its end.
func (d *desk) run(t *testing.T) *desk {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return d
}

func (d *desk) begin(t *testing.T) session.Recording {
	t.Helper()
	rec, err := d.Start(context.Background(), testFacts)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func finish(t *testing.T, rec session.Recording) session.Sealed {
	t.Helper()
	s, err := rec.Finish(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wav exports a recording and returns the two channels.
func (d *desk) wav(t *testing.T, id string) (left, right []byte) {
	t.Helper()
	var out bytes.Buffer
	if err := d.Export(context.Background(), &out, id, d.agency); err != nil {
		t.Fatal(err)
	}
	return channels(t, out.Bytes())
}

func channels(t *testing.T, b []byte) (left, right []byte) {
	t.Helper()
	le := binary.LittleEndian
	if len(b) < 58 || string(b[:4]) != "RIFF" || int(le.Uint32(b[4:])) != len(b)-8 ||
		le.Uint16(b[20:]) != 6 || le.Uint16(b[22:]) != 2 || int(le.Uint32(b[54:])) != len(b)-58 ||
		int(le.Uint32(b[46:])) != (len(b)-58)/2 {
		t.Fatalf("the WAV header is wrong: % x", b[:min(58, len(b))])
	}
	for i := 58; i < len(b); i += 2 {
		left, right = append(left, b[i]), append(right, b[i+1])
	}
	return left, right
}

// alaw codes a sample (ITU-T G.711 table 1a).
func alaw(v int16) byte {
	sign, x := byte(0x80), int(v)>>3
	if v < 0 {
		sign, x = 0, (-int(v)-1)>>3
	}
	exp := 0
	for x>>exp > 31 {
		exp++
	}
	code := x >> 1
	if exp > 0 {
		code = (exp+1)<<4 | (x>>exp)&0xF
		if exp+1 > 7 {
			code = 0x7F
		}
	} else if x > 15 {
		code = 1<<4 | x&0xF
	}
	return (sign | byte(code)) ^ 0x55
}

func linear(a byte) float64 {
	a ^= 0x55
	exp, man := int(a>>4)&7, int(a)&0xF
	v := man<<4 + 8
	if exp > 0 {
		v = (v + 0x100) << (exp - 1)
	}
	if a&0x80 == 0 {
		v = -v
	}
	return float64(v)
}

func tone(hz float64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = alaw(int16(8000 * math.Sin(2*math.Pi*hz*float64(i)/call.Rate)))
	}
	return b
}

// loudest is the strongest frequency of a channel, of a discrete Fourier transform in steps of 10 Hz.
func loudest(b []byte) (hz int) {
	best := 0.0
	for f := 100; f < 3400; f += 10 {
		var re, im float64
		for i, a := range b[:min(len(b), 1600)] {
			w := 2 * math.Pi * float64(f) * float64(i) / call.Rate
			re, im = re+linear(a)*math.Cos(w), im+linear(a)*math.Sin(w)
		}
		if p := re*re + im*im; p > best {
			best, hz = p, f
		}
	}
	return hz
}

// speak writes two tracks in packets of 20 ms, in time.
func speak(sink call.AudioSink, left, right []byte, rtp uint32) {
	for i := 0; i < len(left); i += call.FrameBytes {
		sink.Write(call.TrackIn, rtp+uint32(i), left[i:i+call.FrameBytes])
		sink.Write(call.TrackOut, 77+uint32(i), right[i:i+call.FrameBytes])
		time.Sleep(20 * time.Millisecond)
	}
}

func TestToneComesOutSampleExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t)
		left, right := tone(440, 10*call.Rate), tone(1000, 10*call.Rate)
		speak(rec.Sink(), left, right, math.MaxUint32-4000) // the RTP clock wraps on the way
		rec.Mark("talk", "agent answered")
		sealed := finish(t, rec)

		gotL, gotR := d.wav(t, sealed.ID)
		if !bytes.Equal(gotL, left) || !bytes.Equal(gotR, right) {
			t.Errorf("the audio is not what was spoken: %d and %d samples of %d", len(gotL), len(gotR), len(left))
		}
		if l, r := loudest(gotL), loudest(gotR); l != 440 || r != 1000 {
			t.Errorf("left %d Hz, right %d Hz; want 440 and 1000", l, r)
		}
		if sealed.Duration != 10*time.Second || sealed.Partial {
			t.Errorf("sealed %+v", sealed)
		}
		if err := d.Verify(context.Background(), sealed.ID, d.agency); err != nil {
			t.Error(err)
		}
		m, err := d.Manifest(sealed.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Marks) != 1 || m.Marks[0].AtMS != 10_000 || m.Facts.Trunk != "loopback" {
			t.Errorf("manifest: marks %v, facts %v", m.Marks, m.Facts)
		}
		if again := finish(t, rec); again != sealed {
			t.Errorf("a second Finish says %+v", again)
		}
	})
}

func TestLossReorderAndDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t)
		sink := rec.Sink()
		in := tone(700, 3*call.Rate)
		frame := func(i int) { sink.Write(call.TrackIn, uint32(i*160), in[i*160:(i+1)*160]) }
		for i := range 150 {
			switch i {
			case 40: // lost
			case 60: // 60 comes after 61
			case 61:
				frame(61)
				frame(60)
			case 90:
				frame(90)
				frame(90)
			default:
				frame(i)
			}
			time.Sleep(20 * time.Millisecond)
		}
		left, right := d.wav(t, finish(t, rec).ID)
		want := bytes.Clone(in)
		copy(want[40*160:], bytes.Repeat([]byte{silence}, 160))
		if !bytes.Equal(left, want) {
			t.Error("left is not the tone with one hole of silence")
		}
		if !bytes.Equal(right, bytes.Repeat([]byte{silence}, len(want))) {
			t.Error("right is not silent")
		}
	})
}

func TestPauseIsSilenceInTimeAndSmallOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t)
		in := tone(440, 2*call.Rate)
		first := rec.Sink()
		speak(first, in, in, 0)
		first.Close()
		first.Write(call.TrackIn, 0, in[:160]) // after Close: unheard
		time.Sleep(10 * time.Minute)
		speak(rec.Sink(), in, in, 12345)
		time.Sleep(time.Minute) // wrap-up is no part of the recording
		sealed := finish(t, rec)
		if want := 10*time.Minute + 4*time.Second; sealed.Duration != want {
			t.Errorf("length %v, want %v", sealed.Duration, want)
		}
		if sealed.Bytes > 100_000 {
			t.Errorf("%d bytes for 4 s of sound", sealed.Bytes)
		}
		left, _ := d.wav(t, sealed.ID)
		gap := len(left) - 2*len(in)
		if !bytes.Equal(left[:len(in)], in) || !bytes.Equal(left[len(in)+gap:], in) ||
			!bytes.Equal(left[len(in):len(in)+gap], bytes.Repeat([]byte{silence}, gap)) {
			t.Error("the pause is not silence between two tones")
		}
		if err := d.Verify(context.Background(), sealed.ID, d.agency); err != nil {
			t.Error(err)
		}
	})
}

func TestGapAndDriftAnchorAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t)
		sink := rec.Sink()
		p := tone(440, 160)
		sink.Write(call.TrackIn, 0, p)
		time.Sleep(time.Second)
		sink.Gap(call.TrackIn)
		sink.Write(call.TrackIn, 3_000_000_000, p) // a new clock: stands where it arrives, at 1 s
		time.Sleep(time.Second)
		sink.Write(call.TrackIn, 3_000_000_000+60*call.Rate, p) // a jump without Gap: at 2 s
		sealed := finish(t, rec)
		if want := 2*time.Second + 20*time.Millisecond; sealed.Duration != want {
			t.Errorf("length %v, want %v", sealed.Duration, want)
		}
		m, err := d.Manifest(sealed.ID)
		if err != nil {
			t.Fatal(err)
		}
		if m.Counts.Reanchors != 1 {
			t.Errorf("%d re-anchors, want 1", m.Counts.Reanchors)
		}
	})
}

func TestAnchor(t *testing.T) {
	var a anchor
	if pos, _ := a.place(100, 160, 8000); pos != 8000 {
		t.Errorf("the first packet stands at %d", pos)
	}
	// A stall of 240 ms, then a burst: RTP time is right, and nothing is anchored anew.
	for i := 1; i <= 12; i++ {
		pos, anew := a.place(100+uint32(160*i), 160, 8000+12*160)
		if pos != 8000+int64(160*i) || anew {
			t.Errorf("packet %d of the burst stands at %d, anew %v", i, pos, anew)
		}
	}
	// A clock that stays 300 ms behind is anchored anew at the tenth packet.
	for i := 1; i <= driftPackets; i++ {
		rtp := 100 + uint32(160*(12+i))
		arrival := 8000 + int64(160*(12+i)) + 2400
		pos, anew := a.place(rtp, 160, arrival)
		if want := i == driftPackets; anew != want {
			t.Errorf("packet %d: anew %v, want %v", i, anew, want)
		} else if anew && pos != arrival {
			t.Errorf("anchored at %d, want %d", pos, arrival)
		}
	}
}

func TestStereoBounds(t *testing.T) {
	var s stereo
	p := bytes.Repeat([]byte{1}, 160)
	if f := s.put(call.TrackIn, 0, p); f != kept {
		t.Errorf("fate %d", f)
	}
	if f := s.put(call.TrackIn, bufferSamples, p); f != dropped {
		t.Errorf("beyond the buffer: fate %d", f)
	}
	seg := s.cut(160)
	if seg.start != 0 || seg.end() != 160 || seg.audio[0] != 1 || seg.audio[1] != silence {
		t.Errorf("segment %d to %d, % x", seg.start, seg.end(), seg.audio[:4])
	}
	if f := s.put(call.TrackIn, 100, p); f != late || s.end() != 260 {
		t.Errorf("half late: fate %d, end %d", f, s.end())
	}
	if f := s.put(call.TrackOut, -500, p); f != late || s.end() != 260 {
		t.Errorf("all late: fate %d, end %d", f, s.end())
	}
}

func TestFactsAreSealedToTheRecordingsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, nil).run(t)
		defer d.stop()
		rec := d.begin(t)
		sealed, err := rec.SealFacts([]byte(`{"name":"Wang"}`))
		if err != nil {
			t.Fatal(err)
		}
		key, err := d.KeyOf(sealed)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := OpenFacts(sealed, key, d.agency); err != nil || string(got) != `{"name":"Wang"}` {
			t.Errorf("opened %q, %v", got, err)
		}
		if _, err := OpenFacts(sealed, nil, d.agency); err == nil {
			t.Error("the agency's key opens the facts without the recording's")
		}
		finish(t, rec)

		bare, err := d.SealFacts([]byte("unrecorded"))
		if err != nil {
			t.Fatal(err)
		}
		if key, err := d.KeyOf(bare); key != nil || err != nil {
			t.Errorf("facts of an unrecorded call need the key %q, %v", key, err)
		}
		if got, err := OpenFacts(bare, nil, d.agency); err != nil || string(got) != "unrecorded" {
			t.Errorf("opened %q, %v", got, err)
		}
	})
}
