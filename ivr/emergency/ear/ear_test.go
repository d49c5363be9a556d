package ear

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/speech"
)

// mouth is a recogniser as a script.
type mouth struct {
	results chan speech.Result
	wrote   int
}

func (m *mouth) Write(b []byte)                { m.wrote += len(b) }
func (m *mouth) Results() <-chan speech.Result { return m.results }
func (m *mouth) Close()                        { close(m.results) }

// raises is a judge who finds danger in everything.
type raises struct{}

func (raises) Review(_ context.Context, _ string, v emergency.Verdict) emergency.Verdict {
	return emergency.Verdict{Action: emergency.Confirm, Service: session.Medical, Danger: v.Danger}
}

var detector = func() *emergency.Detector {
	d, err := emergency.New()
	if err != nil {
		panic(err)
	}
	return d
}()

// untaken counts what the tests' ears dropped.
var untaken = NewUntaken(prometheus.NewRegistry())

func hearing(m *mouth, judge Judge) Hearing {
	return Hearing{Start: func() (Stream, error) { return m, nil }, Detector: detector, Judge: judge, Untaken: untaken,
		Contain: func(f func() error) (err error) {
			defer func() {
				if v := recover(); v != nil {
					err = fmt.Errorf("%v", v)
				}
			}()
			return f()
		}}
}

// in runs a test in a bubble with an ear in it.
func in(t *testing.T, judge Judge, body func(e session.Ear, says func(text string, final bool), hears func() (session.Heard, bool))) {
	synctest.Test(t, func(t *testing.T) {
		m := &mouth{results: make(chan speech.Result)}
		e, err := hearing(m, judge).Listen()
		if err != nil {
			t.Fatal(err)
		}
		says := func(text string, final bool) {
			m.results <- speech.Result{Text: text, Final: final, At: time.Now()}
			synctest.Wait()
		}
		hears := func() (session.Heard, bool) {
			synctest.Wait()
			select {
			case h := <-e.Heard():
				return h, true
			default:
				return session.Heard{}, false
			}
		}
		body(e, says, hears)
		e.Close()
		for range e.Heard() {
			t.Error("more was heard than was looked at")
		}
	})
}

func TestPartialHasToLast(t *testing.T) {
	in(t, nil, func(_ session.Ear, says func(string, bool), hears func() (session.Heard, bool)) {
		says("我家着火了", false)
		if h, ok := hears(); ok {
			t.Errorf("heard at once: %+v", h)
		}
		time.Sleep(emergency.Stable)
		h, ok := hears()
		if !ok || h.Kind != session.HeardTransfer || h.Service != session.Fire || h.Words == "" {
			t.Errorf("heard %+v", h)
		}
		says("我家着火了快来", true) // the same sentence says it once
	})
}

func TestWhatIsTakenBackIsNotHeard(t *testing.T) {
	in(t, nil, func(_ session.Ear, says func(string, bool), _ func() (session.Heard, bool)) {
		says("我家昨天着火了", false)
		time.Sleep(emergency.Stable / 2)
		says("我家昨天着火了已经灭了", false)
		time.Sleep(2 * emergency.Stable)
		says("我家昨天着火了已经灭了谢谢", true)
	})
}

func TestDeclinedIsNotTold(t *testing.T) {
	in(t, nil, func(e session.Ear, says func(string, bool), hears func() (session.Heard, bool)) {
		says("我家着火了", true)
		h, _ := hears()
		says("不用", true)
		if no, ok := hears(); !ok || no.Kind != session.HeardNo {
			t.Errorf("heard %+v", no)
		}
		e.Decline(h)
		says("我家着火了", true)
		if again, ok := hears(); ok {
			t.Errorf("heard %+v again", again)
		}
		time.Sleep(emergency.CoolDown)
		says("我家着火了", true)
		if _, ok := hears(); !ok {
			t.Error("not heard any more after the cool-down")
		}
	})
}

func TestAnswers(t *testing.T) {
	in(t, nil, func(_ session.Ear, says func(string, bool), hears func() (session.Heard, bool)) {
		for text, want := range map[string]session.HeardKind{"是的": session.HeardYes, "不是": session.HeardNo, "我想问一下社保": ""} {
			says(text, true)
			if h, _ := hears(); h.Kind != want || h.Service != "" {
				t.Errorf("%s: heard %+v", text, h)
			}
		}
		says("是的", false)
	})
}

func TestJudgeMayRaiseAQuestion(t *testing.T) {
	in(t, raises{}, func(e session.Ear, says func(string, bool), hears func() (session.Heard, bool)) {
		says("我妈叫不应了", true)
		h, ok := hears()
		if !ok {
			t.Fatal("nothing was heard")
		}
		e.Decline(h)
		says("我想问一下社保怎么交", true)
		if again, ok := hears(); ok && again.Service == h.Service {
			t.Errorf("heard %+v, which was declined", again)
		}
	})
}

func TestNobodyTakesWhatIsHeard(t *testing.T) {
	in(t, nil, func(e session.Ear, says func(string, bool), _ func() (session.Heard, bool)) {
		before := testutil.ToFloat64(untaken)
		for range 20 {
			says("是的", true)
		}
		for range cap(e.Heard()) {
			<-e.Heard()
		}
		if n := int(testutil.ToFloat64(untaken) - before); n != 20-cap(e.Heard()) {
			t.Errorf("%d were counted as dropped", n)
		}
	})
}

// breaks is a judge with a fault.
type breaks struct{}

func (breaks) Review(context.Context, string, emergency.Verdict) emergency.Verdict { panic("a fault") }

// A panic ends the hearing of its caller: the session is told by the end of what is heard, and no act of it hangs.
func TestAPanicEndsTheHearing(t *testing.T) {
	m := &mouth{results: make(chan speech.Result)}
	e, err := hearing(m, breaks{}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	m.results <- speech.Result{Text: "我想问一下社保怎么交", Final: true, At: time.Now()}
	if h, more := <-e.Heard(); more {
		t.Errorf("heard %+v", h)
	}
	e.Decline(session.Heard{Service: session.Fire})
	e.Close()
}

func TestOnlyTheCallerIsHeard(t *testing.T) {
	m := &mouth{results: make(chan speech.Result)}
	e, err := hearing(m, nil).Listen()
	if err != nil {
		t.Fatal(err)
	}
	e.Write(call.TrackOut, 0, make([]byte, call.FrameBytes))
	e.Gap(call.TrackIn)
	e.Write(call.TrackIn, 0, make([]byte, call.FrameBytes))
	e.Close()
	if m.wrote != call.FrameBytes {
		t.Errorf("%d bytes were recognised", m.wrote)
	}
	full := errors.New("full")
	if _, err := (Hearing{Start: func() (Stream, error) { return nil, full }}).Listen(); !errors.Is(err, full) {
		t.Errorf("the error is %v", err)
	}
}
