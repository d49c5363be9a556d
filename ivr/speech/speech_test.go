package speech

import (
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/g711"
	"github.com/hotline12345/gateway/ivr/speech/speechtest"
)

// bench is a recogniser on a scripted server, and one caller.
func bench(t *testing.T, script speechtest.Script, change ...func(*Config)) (*Recogniser, *Stream, *speechtest.Vosk) {
	t.Helper()
	server := speechtest.NewVosk(t, script)
	cfg := Defaults()
	cfg.Vosk.URL = server.URL
	for _, c := range change {
		c(&cfg)
	}
	r, err := New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r.backoff = time.Millisecond
	s, err := r.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		r.streams.Wait()
		if n := testutil.ToFloat64(r.metrics.streams); n != 0 {
			t.Errorf("%v streams are left", n)
		}
	})
	return r, s, server
}

// tone is 20 ms of speech, or of what passes for it.
func tone(hz float64, amplitude float64, at int) []byte {
	b := make([]byte, call.FrameBytes)
	for i := range b {
		b[i] = g711.EncodeALaw(int16(amplitude * math.Sin(2*math.Pi*hz*float64(at*len(b)+i)/call.Rate)))
	}
	return b
}

// speak says seconds of a tone, as fast as it can be written.
func speak(s *Stream, d time.Duration) {
	for i := range int(d / (20 * time.Millisecond)) {
		s.Write(tone(400, 8000, i))
	}
}

func next(t *testing.T, s *Stream) Result {
	t.Helper()
	select {
	case r, ok := <-s.Results():
		if !ok {
			t.Fatal("the results have ended")
		}
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was heard")
		return Result{}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func faultsOf(r *Recogniser, kind string) float64 {
	return testutil.ToFloat64(r.metrics.errors.WithLabelValues(kind))
}

func TestWordsComeAsTheyAreSpoken(t *testing.T) {
	for _, rate := range []int{8000, 16000} {
		pieces := make(chan int, 100)
		r, s, _ := bench(t, func(k *speechtest.Talk) error {
			if k.Rate != rate {
				t.Errorf("the rate told is %d", k.Rate)
			}
			for _, answer := range []func() error{
				func() error { return k.Partial("") },
				func() error { return k.Partial("着火 了") },
				func() error { return k.Partial("着火 了") },
				func() error { return k.Final("着火 了 help me") },
			} {
				b, err := k.Sound()
				if err != nil {
					return err
				}
				pieces <- len(b)
				if err := answer(); err != nil {
					return err
				}
			}
			_, err := k.Sound()
			return err
		}, func(c *Config) { c.Vosk.Rate = rate })
		speak(s, 450*time.Millisecond)
		if got := next(t, s); got.Text != "着火了" || got.Final {
			t.Errorf("heard %+v", got)
		}
		if got := next(t, s); got.Text != "着火了help me" || !got.Final || got.At.IsZero() {
			t.Errorf("heard %+v", got) // the partial was not told twice
		}
		if n := <-pieces; n != rate/10*2 {
			t.Errorf("a message has %d bytes at %d Hz", n, rate)
		}
		if testutil.CollectAndCount(r.metrics.replies) == 0 || r.Away() {
			t.Error("no reply was timed, or the server is thought away")
		}
	}
}

func TestSilenceIsNotStreamed(t *testing.T) {
	r, s, _ := bench(t, speechtest.Hears(1, "喂"))
	for i := range 500 {
		s.Write(tone(50, 20, i)) // hum, −64 dBFS
	}
	speak(s, 500*time.Millisecond)
	next(t, s)
	for i := range 500 {
		s.Write(tone(50, 20, i))
	}
	until(t, "what was spoken is sent", func() bool { return testutil.ToFloat64(r.metrics.sent) > 0 })
	if sent := testutil.ToFloat64(r.metrics.sent); sent > 2 {
		t.Errorf("%v s of 20.5 s were sent, of which half a second was spoken", sent)
	}
}

func TestTheEndIsToldToTheLetter(t *testing.T) {
	ended := make(chan error, 1)
	_, s, _ := bench(t, func(k *speechtest.Talk) error {
		for {
			if _, err := k.Sound(); err != nil {
				ended <- err
				return err
			}
			if err := k.Final("喂"); err != nil {
				return err
			}
		}
	})
	speak(s, 200*time.Millisecond)
	next(t, s)
	s.Close()
	select {
	case err := <-ended:
		if err == nil || strings.Contains(err.Error(), "ended") {
			t.Errorf("the server was left by %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the server was not told")
	}
	until(t, "the results end", func() bool { _, more := <-s.Results(); return !more })
}

// TestBrokenConnectionIsReplayed lets the server go in the middle of a sentence: what was said last is heard again.
func TestBrokenConnectionIsReplayed(t *testing.T) {
	r, s, server := bench(t, nil)
	heard := make(chan int, 1)
	server.Does(func(k *speechtest.Talk) error {
		for range 5 {
			if _, err := k.Sound(); err != nil {
				return err
			}
		}
		server.Does(func(k *speechtest.Talk) error {
			for n := 1; ; n++ {
				if _, err := k.Sound(); err != nil {
					return err
				}
				if n == 18 {
					heard <- n
				}
				if err := k.Partial(""); err != nil {
					return err
				}
			}
		})
		return nil // in the middle
	})
	speak(s, 1900*time.Millisecond)
	select {
	case <-heard:
	case <-time.After(20 * time.Second):
		t.Fatal("the speech was not sent again")
	}
	if faultsOf(r, "closed") == 0 {
		t.Error("the break was not counted")
	}
}

func TestGarbageAndFloodEndTheConnection(t *testing.T) {
	for kind, script := range map[string]speechtest.Script{
		"garbled": func(k *speechtest.Talk) error { return k.Answer("<html>502</html>") },
		"flood": func(k *speechtest.Talk) error {
			for {
				if err := k.Partial("x"); err != nil {
					return err
				}
			}
		},
		"closed": func(k *speechtest.Talk) error { return k.Answer(strings.Repeat("x", maxAnswer+1)) },
	} {
		t.Run(kind, func(t *testing.T) {
			r, s, server := bench(t, script)
			until(t, "the connection is given up", func() bool { return faultsOf(r, kind) > 0 })
			server.Does(speechtest.Hears(1, "好"))
			until(t, "the next one is good", func() bool {
				speak(s, 100*time.Millisecond)
				select {
				case got := <-s.Results():
					return got.Text == "好"
				default:
					return false
				}
			})
		})
	}
}

// TestSlowServerHoldsUpNothing has a server that never answers: writing goes on at once, and the oldest is lost.
func TestSlowServerHoldsUpNothing(t *testing.T) {
	hung := make(chan struct{})
	r, s, _ := bench(t, func(*speechtest.Talk) error { <-hung; return nil })
	t.Cleanup(func() { close(hung) })
	began := time.Now()
	speak(s, 15*time.Second)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("15 s were written in %v", took)
	}
	if lost := testutil.ToFloat64(r.metrics.lost); lost < 10 {
		t.Errorf("%v s were lost", lost)
	}
	if sent := testutil.ToFloat64(r.metrics.sent); sent > 2.05 {
		t.Errorf("%v s were sent to a server that does not answer", sent)
	}
}

func TestNobodyReads(t *testing.T) {
	_, s, _ := bench(t, func(k *speechtest.Talk) error {
		for n := 0; ; n++ {
			if _, err := k.Sound(); err != nil {
				return err
			}
			if err := k.Final("一"); err != nil {
				return err
			}
		}
	})
	speak(s, 10*time.Second) // and Close, at the end of the test, is not held up by what nobody reads
}

func TestServerAway(t *testing.T) {
	cfg := Defaults()
	cfg.Vosk.URL = "ws://127.0.0.1:1"
	cfg.MaxStreams = 1
	r, err := New(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Start()
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the server is known to be away", r.Away)
	if _, err := r.Start(); err != ErrFull {
		t.Errorf("a second stream: %v", err)
	}
	if err := r.Check(t.Context()); err == nil {
		t.Error("a server that is away passes")
	}
	s.Close()
	r.streams.Wait()
}

func TestPublicServerIsRefused(t *testing.T) {
	cfg := Defaults()
	cfg.Vosk.URL = "ws://192.0.2.1:2700" // RFC 5737, nobody's
	r, err := New(cfg, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "public: true") {
		t.Errorf("the error is %v", err)
	}
}

func TestConfig(t *testing.T) {
	for change, want := range map[string]func(*Config){
		"vosk.url:":    func(c *Config) { c.Vosk.URL = "http://x" },
		"vosk.rate:":   func(c *Config) { c.Vosk.Rate = 44100 },
		"max_streams:": func(c *Config) { c.MaxStreams = 0 },
	} {
		cfg := Defaults()
		want(&cfg)
		if err := cfg.Validate(); err == nil || !strings.HasPrefix(err.Error(), change) {
			t.Errorf("%s: %v", change, err)
		}
	}
	if err := Defaults().Validate(); err != nil || Defaults().On() {
		t.Errorf("the defaults: on, or %v", err)
	}
}

func TestAPanicIsContained(t *testing.T) {
	r, _, _ := bench(t, speechtest.Hears(1, "喂"))
	if err := r.Contain(func() error { panic("a fault") }); err == nil || testutil.ToFloat64(r.metrics.errors.WithLabelValues(panicked)) != 1 {
		t.Errorf("the error is %v", err)
	}
}
