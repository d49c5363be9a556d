package sip

import (
	"strconv"
	"strings"
	"testing"

	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/trunk"
)

func TestMask(t *testing.T) {
	plan, err := trunk.NewPlan("571", []string{"12345"})
	if err != nil {
		t.Fatal(err)
	}
	in := strings.Join([]string{
		"INVITE sip:+8657188881234@127.0.0.1:5060;user=phone SIP/2.0",
		"Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1234567890",
		`From: "13812345678" <sip:13812345678@127.0.0.1>;tag=abc`,
		"To: <sip:12345@127.0.0.1>",
		"Call-ID: 1234567890123",
		"P-Asserted-Identity: <tel:+86-138-1234-5678>",
		"Contact: <sip:13812345678@192.168.100.200:5070>",
		"Diversion: <sip:13912345678@x>",
		`Authorization: Digest username="1001", response="deadbeef"`,
		"", "v=0\r\no=13812345678 1234567890 1 IN IP4 127.0.0.1\r\nm=audio 20000 RTP/AVP 8\r\n"}, "\r\n")
	want := strings.Join([]string{
		"INVITE sip:057*****1234@127.0.0.1:5060;user=phone SIP/2.0",
		"Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1234567890",
		`From: "138****5678" <sip:138****5678@127.0.0.1>;tag=abc`,
		"To: <sip:12345@127.0.0.1>",
		"Call-ID: 1234567890123",
		"P-Asserted-Identity: <tel:138****5678>",
		"Contact: <sip:138****5678@192.168.100.200:5070>",
		"Diversion: <sip:139****5678@x>",
		`Authorization: Digest username="1001", response="***"`,
		"", "v=0\r\no=138****5678 1234567890 1 IN IP4 127.0.0.1\r\nm=audio 20000 RTP/AVP 8\r\n"}, "\r\n")
	if got := mask(plan, in); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for body, want := range map[string]string{"Signal=5\r\nDuration=160\r\n": "Signal=*\r\nDuration=160\r\n", "5": "*"} {
		head := "INFO sip:x SIP/2.0\r\nCall-ID: a\r\n\r\n"
		if got := mask(plan, head+body); got != head+want {
			t.Errorf("%q: %q", body, got)
		}
	}
}

func FuzzMask(f *testing.F) {
	plan, err := trunk.NewPlan("571", []string{"12345"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("INVITE sip:13812345678@x SIP/2.0\r\nFrom: <sip:+8613812345678@x>\r\n\r\no=13812345678 1\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(mask(plan, "From: <sip:13812345678@x>\r\n"+s), "13812345678@x>\r\n"+s) && s != "" {
			t.Error("the number is in clear")
		}
	})
}

func TestResponse(t *testing.T) {
	for raw, want := range map[string]string{
		"SIP/2.0 200 OK\r\nCSeq: 1 INVITE\r\n\r\n":       "2xx INVITE",
		"SIP/2.0 487 x\r\nCSeq:  9  CANCEL\r\n\r\n":      "4xx CANCEL",
		"SIP/2.0 202 Accepted\r\nCSeq: 3 REFER\r\n\r\n":  "2xx other",
		"SIP/2.0 202 Accepted\r\n\r\n":                   "2xx other",
		"INVITE sip:x SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n": " ",
		"SIP/2.0 9": " ",
	} {
		class, method, _ := response([]byte(raw))
		if got := class + " " + method; got != want {
			t.Errorf("%q: %q", raw, got)
		}
	}
}

func TestIDsAreBounded(t *testing.T) {
	i := newIDs()
	for n := range 3 * maxTraced {
		i.set(newID(), "leg")
		i.of(dialog.Message{CallID: strconv.Itoa(n), Raw: []byte("INVITE sip:x SIP/2.0")})
	}
	if n := len(i.cur) + len(i.prev); n > 2*maxTraced {
		t.Errorf("%d legs are held", n)
	}
	if n := len(i.early); n > maxEarly {
		t.Errorf("the messages of %d calls are held", n)
	}
}

// Messages wait for their leg; those of a call that became none go.
func TestEarlyMessages(t *testing.T) {
	i := newIDs()
	for _, m := range []dialog.Message{
		{CallID: "a", Raw: []byte("INVITE sip:x SIP/2.0")}, {CallID: "a", Sent: true, Raw: []byte("SIP/2.0 100 Trying")},
		{CallID: "b", Raw: []byte("INVITE sip:x SIP/2.0")}, {CallID: "c", Raw: []byte("REGISTER sip:x SIP/2.0")},
	} {
		if leg := i.of(m); leg != "" {
			t.Errorf("%s is of %s", m.CallID, leg)
		}
	}
	for range 2 * maxHeld {
		i.of(dialog.Message{CallID: "b", Raw: []byte("INVITE sip:x SIP/2.0")})
	}
	if n := len(i.early["b"]); n != maxHeld {
		t.Errorf("%d messages of one call wait, want %d", n, maxHeld)
	}
	i.drop("b")
	if held := i.set("a", "leg"); len(held) != 2 || held[1].Sent != true {
		t.Errorf("%d messages waited, want 2", len(held))
	}
	if leg := i.of(dialog.Message{CallID: "a", Raw: []byte("ACK sip:x SIP/2.0")}); leg != "leg" || len(i.early) != 0 {
		t.Errorf("the next message is of %q, and %d calls wait", leg, len(i.early))
	}
}
