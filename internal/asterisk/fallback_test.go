package asterisk

import (
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/call/calltest"
)

// TestFallback is the dialplan without a gateway: a plain queue, with the emergency key alive.
func TestFallback(t *testing.T) {
	ast := asterisktest.Start(t, "n1", "127.0.0.1:9")
	w := newWorld(t, ast)
	carrier := w.person("carrier", "")
	ast.Carrier(carrier.phone.Addr().String())

	danger := w.Call(call.Info{Caller: plan("13800138001"), Called: "12345"})
	<-danger.Answered()
	danger.Press("0")
	carrier.Rung()
	if to := carrier.current().To; to != "9110" {
		t.Errorf("key 0 called %s", to)
	}
	carrier.PickUp()
	carrier.Speak(900)
	if got := calltest.Share(danger.Listen(900 * time.Millisecond)[call.Rate/4:], 900); got < 0.5 {
		t.Errorf("the caller in danger hears %.2f of the service", got)
	}

	agent := w.Phone("1001")
	caller := w.Call(call.Info{Caller: plan("13800138000"), Called: "12345"})
	<-caller.Answered()
	agent.Rung()
	agent.PickUp()
	agent.Speak(1100)
	if got := calltest.Share(caller.Listen(900 * time.Millisecond)[call.Rate/4:], 1100); got < 0.5 {
		t.Errorf("the caller hears %.2f of the agent", got)
	}
}
