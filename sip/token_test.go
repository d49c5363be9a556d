package sip

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/siptest"
)

func TestToken(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	mine := newTokens(clusterSecret, "east 1")
	good := mine.issue("n2", "call", "1001", "phone", now)
	for name, c := range map[string]struct {
		value, callID, extension, node string
		secret                         []byte
		after                          time.Duration
		ok                             bool
	}{
		"good":                {value: good, ok: true},
		"a minute late":       {value: good, after: time.Minute, ok: true},
		"a minute early":      {value: good, after: -time.Minute, ok: true},
		"too late":            {value: good, after: time.Minute + time.Millisecond},
		"too early":           {value: good, after: -time.Minute - time.Millisecond},
		"another call":        {value: good, callID: "other"},
		"another extension":   {value: good, extension: "1002"},
		"for another gateway": {value: good, node: "n3"},
		"another phone":       {value: strings.Replace(good, "phone", "other", 1)},
		"another name":        {value: strings.Replace(good, "east+1", "west+1", 1)},
		"another secret":      {value: good, secret: []byte("another secret of the same size.")},
		"no secret":           {value: newTokens(nil, "east 1").issue("n2", "call", "1001", "phone", now), secret: []byte{}},
		"none":                {},
		"half":                {value: good[:len(good)/2]},
		"too long":            {value: good + strings.Repeat(" ", 512)},
	} {
		if c.callID == "" {
			c.callID = "call"
		}
		if c.extension == "" {
			c.extension = "1001"
		}
		if c.node == "" {
			c.node = "n2"
		}
		if c.secret == nil {
			c.secret = clusterSecret
		}
		k := newTokens(c.secret, c.node)
		got, err := k.take(c.value, c.callID, c.extension, now.Add(c.after))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errToken) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && (got.node != "east 1" || got.phone != "phone") {
			t.Errorf("%s: %+v", name, got)
		}
		if _, err := k.take(c.value, c.callID, c.extension, now.Add(c.after)); err == nil {
			t.Errorf("%s: taken twice", name)
		}
	}
}

// A token is taken once for as long as it is good, however many others come meanwhile.
func TestTokenIsNotTakenAgain(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	k := newTokens(clusterSecret, "n2")
	early := k.issue("n2", "call", "1001", "phone", now.Add(tokenSkew)) // by a clock that is ahead
	if _, err := k.take(early, "call", "1001", now); err != nil {
		t.Fatal(err)
	}
	for at := now; at.Before(now.Add(2 * tokenSkew)); at = at.Add(time.Second) {
		if _, err := k.take(k.issue("n2", at.String(), "1001", "phone", at), at.String(), "1001", at); err != nil {
			t.Fatal(err)
		}
		if _, err := k.take(early, "call", "1001", at); err == nil {
			t.Fatalf("taken again after %v", at.Sub(now))
		}
	}
	if len(k.cur)+len(k.prev) > 200 {
		t.Errorf("%d and %d tokens are remembered", len(k.cur), len(k.prev))
	}
}

func FuzzToken(f *testing.F) {
	now := time.Now()
	f.Add(newTokens(clusterSecret, "n1").issue("n2", "call", "1001", "phone", now))
	f.Add("n1 phone 1700000000000 00")
	f.Add("%zz phone -1 ")
	f.Fuzz(func(t *testing.T, s string) {
		got, seal, err := parseToken(s)
		if err != nil {
			return
		}
		again, same, err := parseToken(got.String() + " " + seal)
		if err != nil || again != got || same != seal {
			t.Errorf("%q reads as %+v, and that as %+v, %v", s, got, again, err)
		}
		if _, err := newTokens(clusterSecret, "n2").take(s, "other", "1001", now); err == nil {
			t.Error("a token without the secret was taken")
		}
	})
}

// Who has no token of the cluster rings no phone, from whatever address.
func TestStrangerAtTheNodeTrunk(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	n1, n2 := f.nodes["n1"], f.nodes["n2"]
	stranger := n2.person("138****5678", false)
	stranger.phone = newPhone(stranger, "138****5678", n2.sw.nodeAddrPort(t))
	stranger.sit()
	own, err := n2.sw.registrar.Own(t.Context(), "1001")
	if err != nil || len(own) != 1 {
		t.Fatalf("%v, %v", own, err)
	}
	id := phoneID(own[0].Phone())
	for name, token := range map[string]string{
		"none":           "",
		"another secret": newTokens([]byte("another secret of the same size."), "n1").issue("n2", "x", "1001", id, time.Now()),
		"another call":   n1.sw.tokens.issue("n2", "x", "1001", id, time.Now()),
	} {
		stranger.dial("1001", nodeHeader+": "+token)
		if m := <-stranger.refused; m.Status() != 403 {
			t.Errorf("%s: %s", name, m.Start)
		}
	}
	if n := testutil.ToFloat64(n2.sw.metrics.refused.WithLabelValues("token")); n != 3 {
		t.Errorf("%v refused", n)
	}
	// Another gateway with the wrong secret is refused as well, and says that the phone is out of reach.
	n1.sw.tokens.secret = []byte("another secret of the same size.")
	_, err = f.dial(t.Context(), "n1", "1001")
	if e, ok := errors.AsType[*call.DialError](err); !ok || e.Cause != call.CauseTempUnavailable {
		t.Errorf("%v", err)
	}
	select {
	case m := <-agent.rung:
		t.Errorf("the phone was rung:\n%s", m.Raw)
	default:
	}
}

// A call that was overheard cannot be placed again.
func TestTokenIsReplayed(t *testing.T) {
	f := newFleet(t, nil, "n1", "n2")
	agent := f.agent("1001", "n2")
	go func() { <-agent.rung; agent.Refuse(486) }()
	if _, err := f.dial(t.Context(), "n1", "1001"); err == nil {
		t.Fatal("answered")
	}
	f.nodes["n2"].mu.Lock()
	var heard string
	for _, m := range f.nodes["n2"].ladder {
		if _, text, _ := strings.Cut(m, "\n"); strings.HasPrefix(text, "INVITE ") && strings.Contains(text, nodeHeader) {
			heard = text
		}
	}
	f.nodes["n2"].mu.Unlock()
	m := siptest.ParseMessage(heard)
	eve := f.nodes["n2"].person("eve", false)
	eve.phone = newPhone(eve, "eve", f.nodes["n2"].sw.nodeAddrPort(t))
	eve.sit()
	eve.mu.Lock()
	eve.call = &siptest.Call{Phone: eve.phone, ID: m.Get("Call-ID"), Local: "<sip:eve@127.0.0.1>;tag=eve",
		Remote: "<sip:1001@127.0.0.1>", Target: "sip:1001@127.0.0.1"}
	eve.phone.Send(eve.call.Text("INVITE", 1, "z9hG4bKeve", eve.offer("sendrecv"), nodeHeader+": "+m.Get(nodeHeader)))
	eve.mu.Unlock()
	if m := <-eve.refused; m.Status() != 403 {
		t.Errorf("%s", m.Start)
	}
}
