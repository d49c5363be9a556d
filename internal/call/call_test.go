package call

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestNumberMasksItself(t *testing.T) {
	for _, c := range []struct{ n, national, masked string }{
		{"+8613800138000", "13800138000", "138****8000"},
		{"+8657187654321", "057187654321", "057*****4321"},
		{"+14155550100", "0014155550100", "001******0100"},
		{"", "", "anonymous"},
	} {
		n := Number{E164: c.n}
		if got := n.National(); got != c.national {
			t.Errorf("%s is %s in China, want %s", c.n, got, c.national)
		}
		if got := n.Masked(); got != c.masked {
			t.Errorf("%s is masked as %s, want %s", c.n, got, c.masked)
		}
	}
	if got := (Number{Raw: "12345"}).Masked(); got != "***45" {
		t.Errorf("a short number is masked as %s", got)
	}
}

func TestNoVerbShowsANumber(t *testing.T) {
	n := Number{E164: "+8613800138000", Raw: "13800138000"}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("call", "caller", n)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		fmt.Fprintf(&b, verb, n)
		fmt.Fprintf(&b, verb, Info{Caller: n})
		fmt.Fprintf(&b, verb, DialOptions{Caller: n})
	}
	if strings.Contains(b.String(), "0013800") || strings.Contains(b.String(), "13800138000") {
		t.Errorf("a number stands in clear: %s", b.String())
	}
}

func TestCausesRoundTrip(t *testing.T) {
	for _, status := range []int{404, 486, 408, 480, 484, 488, 503} {
		if got := CauseOfStatus(status).Status(); got != status {
			t.Errorf("%d came back as %d", status, got)
		}
	}
	if got := CauseForbidden.Status(); got != 403 {
		t.Errorf("the hotline's own number is refused with %d", got)
	}
	if got := Cause(999).Status(); got != 500 {
		t.Errorf("an unknown cause is refused with %d", got)
	}
	for _, want := range []string{"Q.850;cause=17 user busy", "Q.850;cause=999"} {
		c := Cause(999)
		if strings.Contains(want, "17") {
			c = CauseBusy
		}
		if c.String() != want {
			t.Errorf("%s, want %s", c, want)
		}
	}
}

func TestEveryEndIsAGoneLeg(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&Ended{Remote: true, Cause: CauseNormal})
	if !errors.Is(context.Cause(ctx), ErrLegGone) {
		t.Error("the cause of an ended leg is not ErrLegGone")
	}
	for _, e := range []*Ended{{}, {Remote: true}, {Reason: EndMediaTimeout}} {
		if e.Error() == "" {
			t.Errorf("%+v says nothing", e)
		}
	}
}

func TestDialErrorTellsItsCause(t *testing.T) {
	inner := errors.New("connection refused")
	err := &DialError{Cause: CauseBusy, Status: 486, Err: inner}
	if !errors.Is(err, inner) || !strings.Contains(err.Error(), "user busy") {
		t.Errorf("the error is %v", err)
	}
}

func TestClipDuration(t *testing.T) {
	if got := (&Clip{PCMA: make([]byte, Rate/2)}).Duration(); got != 500*time.Millisecond {
		t.Errorf("half a second lasts %v", got)
	}
}

func TestValidDigit(t *testing.T) {
	valid := ""
	for b := range 256 {
		if ValidDigit(byte(b)) {
			valid += string(rune(b))
		}
	}
	if valid != "#*0123456789ABCD" {
		t.Errorf("the keys are %s", valid)
	}
}
