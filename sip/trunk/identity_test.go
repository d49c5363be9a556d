package trunk

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/google/go-cmp/cmp"

	"github.com/hotline12345/gateway/internal/call"
)

func one(t testing.TB, c Config) *Trunk {
	t.Helper()
	if c.Name == "" {
		c.Name = "t"
	}
	if c.Sources == nil {
		c.Sources = []string{"127.0.0.0/8"}
	}
	s, err := NewSet([]Config{c}, hangzhou(t), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.All()[0]
}

func invite(t testing.TB, from string, headers ...string) *sip.Request {
	t.Helper()
	text := "INVITE sip:12345@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1\r\n" +
		"From: " + from + ";tag=1\r\nTo: <sip:12345@127.0.0.1>\r\nCall-ID: a\r\nCSeq: 1 INVITE\r\n" +
		strings.Join(append(headers, "Content-Length: 0"), "\r\n") + "\r\n\r\n"
	m, err := sip.ParseMessage([]byte(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m.(*sip.Request)
}

func TestIdentify(t *testing.T) {
	const (
		mobile = "<sip:13812345678@carrier>"
		wire   = "+8613812345678"
		pai    = "P-Asserted-Identity: "
	)
	for _, c := range []struct {
		name     string
		identity Identity
		from     string
		headers  []string
		want     call.Identity
		number   string
		own      bool
		withheld bool
	}{
		{"asserted", ByPAI, mobile, []string{pai + `"a,b" <sip:+8613812345678@ims;user=phone>`}, call.Verified, wire, false, false},
		{"sip and tel agree", ByPAI, mobile, []string{pai + "<sip:+8613812345678@ims>, <tel:+86-138-1234-5678>"}, call.Verified, wire, false, false},
		{"in two headers", ByPAI, mobile, []string{pai + "<sip:13812345678@ims>", pai + "tel:13812345678;phone-context=+86"}, call.Verified, wire, false, false},
		{"two numbers", ByPAI, mobile, []string{pai + "<sip:+8613812345678@ims>, <tel:+8613900000000>"}, call.Spoof, wire, false, false},
		{"two of a kind", ByPAI, mobile, []string{pai + "<sip:13812345678@a>, <sip:13812345678@b>"}, call.Spoof, wire, false, false},
		{"assertion missing", ByPAI, mobile, nil, call.Spoof, wire, false, false},
		{"assertion unreadable", ByPAI, mobile, []string{pai + "<sip:"}, call.Spoof, wire, false, false},
		{"no claim, none asserted", ByPAI, `"Anonymous" <sip:anonymous@anonymous.invalid>`, nil, call.Anonymous, "", false, true},
		{"hidden but asserted", ByPAI, "<sip:anonymous@anonymous.invalid>", []string{pai + "<tel:+8613812345678>", "Privacy: id;critical"}, call.Verified, wire, false, true},
		{"not a number", ByPAI, mobile, []string{pai + "<sip:alice@ims>"}, call.Anonymous, "", false, false},
		{"presentation differs", ByPAI, "<sip:057188880001@pbx>", []string{pai + "<sip:+8613812345678@ims>"}, call.Verified, wire, false, false},
		{"shared", ByPAI, mobile, []string{pai + "<sip:+8657166660000@ims>"}, call.Shared, "+8657166660000", false, false},
		{"shared range", ByPAI, mobile, []string{pai + "<sip:057177771234@ims>"}, call.Shared, "+8657177771234", false, false},
		{"payphone", ByPAI, mobile, []string{pai + "<tel:+8657122223333;cpc=payphone>"}, call.Shared, "+8657122223333", false, false},
		{"own asserted", ByPAI, mobile, []string{pai + "<sip:+8657112345@ims>"}, call.Verified, "+8657112345", true, false},
		{"own in From", ByPAI, "<sip:0571-12345@x>", []string{pai + "<sip:+8613812345678@ims>"}, call.Verified, wire, true, false},
		{"own, short", ByFrom, "<sip:12345@x>", nil, call.Verified, "+8657112345", true, false},
		{"from", ByFrom, mobile, nil, call.Verified, wire, false, false},
		{"from as tel", ByFrom, "<tel:13812345678;phone-context=+86>", nil, call.Verified, wire, false, false},
		{"from with context", ByFrom, "<sip:88881234;phone-context=+86571@ims;user=phone>", nil, call.Verified, "+8657188881234", false, false},
		{"from contradicted", ByFrom, mobile, []string{pai + "<tel:+8613900000000>"}, call.Spoof, wire, false, false},
		{"from confirmed", ByFrom, mobile, []string{pai + "<tel:+8613812345678>"}, call.Verified, wire, false, false},
		{"from without number", ByFrom, `"x" <sip:alice@pbx>`, nil, call.Anonymous, "", false, false},
		{"none", ByNone, mobile, []string{pai + "<tel:+8613812345678>"}, call.Anonymous, wire, false, false},
		{"route code", ByFrom, "<sip:99#13812345678@x>", nil, call.Verified, wire, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := one(t, Config{Identity: c.identity, Carrier: true, CallerStrip: "99#",
				Shared: []string{"0571-66660000", "0571-7777*"}})
			got := tr.Identify(invite(t, c.from, c.headers...))
			got.Display = ""
			raw := got.Number.Raw
			want := Caller{Number: call.Number{E164: c.number, Raw: raw}, Identity: c.want, OwnNumber: c.own, Withheld: c.withheld}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestOwnNumberIsACarriersMatterAlone(t *testing.T) {
	tr := one(t, Config{Identity: ByFrom})
	if got := tr.Identify(invite(t, "<sip:12345@127.0.0.1>")); got.OwnNumber {
		t.Error("a trunk that is no carrier was held to Art. 28")
	}
}

func TestOutgoingForms(t *testing.T) {
	tr := one(t, Config{Identity: ByFrom, Address: "203.0.113.10:5080", Caller: "0571-12345", Domain: "ims.example"})
	caller := call.Number{E164: "+8613812345678"}
	for form, want := range map[call.CallerForm]string{
		call.FormFrom:      "sip:+8613812345678@ims.example;user=phone []",
		call.FormPAI:       "sip:+8657112345@ims.example;user=phone [P-Asserted-Identity: <sip:+8613812345678@ims.example;user=phone>]",
		call.FormDiversion: "sip:+8657112345@ims.example;user=phone [Diversion: <sip:+8613812345678@ims.example;user=phone>;reason=unconditional;privacy=off]",
		call.FormSpoken:    "sip:+8657112345@ims.example;user=phone []",
		"":                 "sip:+8657112345@ims.example;user=phone []",
	} {
		o := tr.Outgoing("110", caller, form, "127.0.0.1")
		if got := fmt.Sprint(o.From.String(), " ", o.Headers); got != want {
			t.Errorf("%q: %s", form, got)
		}
		if got := o.Target.String(); got != "sip:110@ims.example;user=phone" {
			t.Errorf("target: %s", got)
		}
	}
	plain := one(t, Config{Identity: ByFrom, Address: "[2001:db8::1]:5080", Caller: "12345"})
	o := plain.Outgoing("110", call.Number{Raw: "anonymous"}, call.FormFrom, "2001:db8::2")
	if got := o.Target.String() + " " + o.From.String(); got != "sip:110@[2001:db8::1]:5080;user=phone sip:+8657112345@[2001:db8::2];user=phone" {
		t.Error(got)
	}
	if got := plain.Ping(); got.String() != "sip:[2001:db8::1]:5080" {
		t.Errorf("ping: %s", got.String())
	}
}

func FuzzIdentities(f *testing.F) {
	for _, s := range []string{`"a,\"b" <sip:+86138@x;user=phone>, <tel:+1>`, "<<>>,,", `"`, "tel:1;phone-context=", "*"} {
		f.Add(s)
	}
	tr := one(f, Config{Identity: ByPAI, Carrier: true})
	f.Fuzz(func(t *testing.T, s string) {
		req := sip.NewRequest(sip.INVITE, sip.Uri{Host: "x"})
		req.AppendHeader(sip.NewHeader("P-Asserted-Identity", s))
		if got := tr.asserted(req); len(got) > maxIdentities {
			t.Errorf("%d identities", len(got))
		}
		tr.Identify(req)
	})
}
