package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hotline12345/gateway/internal/call"
)

func local() *Local { return &Local{Addr: netip.MustParseAddrPort("192.0.2.1:10000")} }

// plain is the answer of a conversation.
func plain() Remote {
	return Remote{
		Addr: netip.MustParseAddrPort("10.0.0.2:4000"), RTCP: netip.MustParseAddrPort("10.0.0.2:4001"),
		Codec: call.PCMA, PayloadType: 8, RecvPayloadType: 8, EventType: 101, RecvEventType: 101,
		PTime: 20 * time.Millisecond, Send: true, Recv: true,
	}
}

const head = "v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n"
const audio = "m=audio 4000 RTP/AVP 8 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"

func TestAnswer(t *testing.T) {
	addr := netip.MustParseAddrPort
	for name, c := range map[string]struct {
		offer string
		want  func(*Remote)
		lines string // of the answer's streams
	}{
		"plain":                {head + audio, nil, ""},
		"no final CRLF":        {strings.TrimSuffix(head+audio, "\r\n"), nil, ""},
		"bare line feeds":      {strings.ReplaceAll(head+audio, "\r\n", "\n"), nil, ""},
		"no s= and no t=":      {"v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\nc=IN IP4 10.0.0.2\r\n" + audio, nil, ""},
		"a= before t=":         {"v=0\r\no=- 1 1 IN IP4 10.0.0.2\r\ns=-\r\na=x\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n" + audio, nil, ""},
		"a word as session id": {"v=0\r\no=Huawei SoftX3000 abc def IN IP4 10.0.0.2\r\ns=Sip Call\r\nc=IN IP4 10.0.0.2\r\nt=0 0\r\n" + audio, nil, ""},
		"unknown lines":        {head + "y=0\r\nb=AS:64\r\n" + audio + "q=1\r\nnonsense\r\nb=AS:64\r\n", nil, ""},
		"lower case names":     {head + "m=audio 4000 RTP/AVP 97 101\r\na=rtpmap:97 pcma/8000/1\r\na=rtpmap:101 Telephone-Event/8000\r\n", func(r *Remote) { r.PayloadType, r.RecvPayloadType = 97, 97 }, ""},
		"PCMU first": {head + "m=audio 4000 RTP/AVP 0 8\r\n", func(r *Remote) {
			r.Codec, r.PayloadType, r.RecvPayloadType, r.EventType, r.RecvEventType = call.PCMU, 0, 0, -1, -1
		}, ""},
		"events at 96, 16 kHz beside them": {head + "m=audio 4000 RTP/AVP 9 8 100 96\r\na=rtpmap:100 telephone-event/16000\r\na=rtpmap:96 telephone-event/8000\r\n",
			func(r *Remote) { r.EventType, r.RecvEventType = 96, 96 }, ""},
		"address of the stream": {"v=0\r\nc=IN IP4 10.9.9.9\r\n" + audio + "c=IN IP4 10.0.0.2\r\n", nil, ""},
		"ptime 30":              {head + audio + "a=ptime:30\r\n", func(r *Remote) { r.PTime = 30 * time.Millisecond }, ""},
		"ptime out of range":    {head + audio + "a=ptime:200\r\n", nil, ""},
		"rtcp port":             {head + audio + "a=rtcp:5000\r\n", func(r *Remote) { r.RTCP = addr("10.0.0.2:5000") }, ""},
		"rtcp address":          {head + audio + "a=rtcp:5000 IN IP4 10.0.0.3\r\n", func(r *Remote) { r.RTCP = addr("10.0.0.3:5000") }, ""},
		"their hold":            {head + audio + "a=sendonly\r\n", func(r *Remote) { r.Send, r.Hold = false, true }, ""},
		"their hold for all":    {head + "a=sendonly\r\n" + audio, func(r *Remote) { r.Send, r.Hold = false, true }, ""},
		"stream over session":   {head + "a=inactive\r\n" + audio + "a=sendrecv\r\n", nil, ""},
		"inactive":              {head + audio + "a=inactive\r\n", func(r *Remote) { r.Send, r.Recv, r.Hold = false, false, true }, ""},
		"recvonly":              {head + audio + "a=recvonly\r\n", func(r *Remote) { r.Recv = false }, ""},
		"hold of RFC 2543": {strings.Replace(head, "c=IN IP4 10.0.0.2", "c=IN IP4 0.0.0.0", 1) + audio,
			func(r *Remote) {
				r.Addr, r.RTCP, r.Send, r.Hold = addr("0.0.0.0:4000"), addr("0.0.0.0:4001"), false, true
			}, ""},
		"fax and video": {head + "m=image 5000 udptl t38\r\n" + audio + "m=video 6000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=inactive\r\n", nil,
			"image 0 UDPTL t38|audio 10000 RTP/AVP 8 101|video 0 RTP/AVP 96"},
		"SRTP first": {head + "m=audio 4002 RTP/SAVP 8\r\n" + audio, nil, "audio 0 RTP/SAVP 8|audio 10000 RTP/AVP 8 101"},
		"IPv6": {"v=0\r\nc=IN IP6 2001:db8::1\r\n" + audio,
			func(r *Remote) { r.Addr, r.RTCP = addr("[2001:db8::1]:4000"), addr("[2001:db8::1]:4001") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			answer, got, err := local().Answer([]byte(c.offer))
			if err != nil {
				t.Fatal(err)
			}
			want := plain()
			if c.want != nil {
				c.want(&want)
			}
			if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			d, err := Parse(answer)
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for line := range strings.SplitSeq(string(answer), "\r\n") {
				if v, ok := strings.CutPrefix(line, "m="); ok {
					lines = append(lines, v)
				}
			}
			if c.lines != "" && strings.Join(lines, "|") != c.lines {
				t.Errorf("streams %q, want %q", lines, c.lines)
			}
			for _, m := range d.Media {
				if m.Port != 0 && m.Direction != Flow(want.Send, want.Recv) {
					t.Errorf("answered %s, want %s", m.Direction, Flow(want.Send, want.Recv))
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, offer := range map[string]string{
		"nothing":         "",
		"noise":           "hello\r\nworld",
		"no G.711":        head + "m=audio 4000 RTP/AVP 18\r\n",
		"SRTP alone":      head + "m=audio 4000 RTP/SAVP 8\r\n",
		"port 0":          head + "m=audio 0 RTP/AVP 8\r\n",
		"fax alone":       head + "m=image 4000 udptl t38\r\n",
		"8 remapped":      head + "m=audio 4000 RTP/AVP 8\r\na=rtpmap:8 OPUS/48000\r\n",
		"no address":      "v=0\r\n" + audio,
		"a host name":     "v=0\r\nc=IN IP4 media.example.com\r\n" + audio,
		"a short m=":      head + "m=audio\r\n",
		"a port too high": head + "m=audio 70000 RTP/AVP 8\r\n",
		"too long":        head + audio + strings.Repeat("a=x\r\n", 20000),
		"too many lines":  head + audio + strings.Repeat("a\n", 2000),
		"too many":        head + strings.Repeat(audio, 17),
	} {
		_, _, err := local().Answer([]byte(offer))
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNoAudio) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOfferAndItsAnswer(t *testing.T) {
	l := local()
	first := string(l.Offer(SendRecv))
	if again := string(l.Offer(SendRecv)); again != first {
		t.Errorf("the same offer differs:\n%s\n%s", first, again)
	}
	held := string(l.Offer(SendOnly))
	o := func(s string) (id string, version int) {
		d, err := Parse([]byte(s))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Sscanf(d.Origin, "- %s %d", &id, &version)
		return id, version
	}
	id1, v1 := o(first)
	id2, v2 := o(held)
	if id1 != id2 || v2 != v1+1 {
		t.Errorf("o= %s %d then %s %d, want the version one higher", id1, v1, id2, v2)
	}

	// The answer to a hold is recvonly, and is no hold of theirs; events come back as they were offered.
	r, err := l.Accept([]byte(head + "m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 telephone-event/8000\r\na=recvonly\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := plain()
	want.Codec, want.PayloadType, want.RecvPayloadType, want.EventType, want.RecvEventType = call.PCMU, 0, 0, 96, 101
	want.Recv = false
	if diff := cmp.Diff(want, r, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := l.Accept([]byte(head + "m=audio 0 RTP/AVP 8\r\n")); !errors.Is(err, ErrNoAudio) {
		t.Errorf("a refused stream: %v", err)
	}
}

func TestMux(t *testing.T) {
	l := local()
	l.Mux = true
	answer, r, err := l.Answer([]byte(head + audio + "a=rtcp-mux\r\n"))
	if err != nil || !r.Mux || r.RTCP != r.Addr || !strings.Contains(string(answer), "a=rtcp-mux\r\n") {
		t.Errorf("%v %+v\n%s", err, r, answer)
	}
}

func TestHoldAndResume(t *testing.T) {
	l := local()
	for _, step := range []struct {
		offer, answer Direction
	}{{SendRecv, SendRecv}, {SendOnly, RecvOnly}, {Inactive, Inactive}, {RecvOnly, SendOnly}, {SendRecv, SendRecv}} {
		answer, _, err := l.Answer([]byte(head + audio + "a=" + string(step.offer) + "\r\n"))
		if err != nil || !strings.Contains(string(answer), "a="+string(step.answer)+"\r\n") {
			t.Errorf("%s: %v\n%s", step.offer, err, answer)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(head + audio))
	f.Add([]byte(head + "m=image 5000 udptl t38\r\n" + audio + "a=rtcp:5 IN IP4 1.2.3.4\r\na=ptime:20.5\r\n"))
	f.Add([]byte("v=0\nm=audio 1/2 RTP/AVP\nc=\na=\na=rtpmap:\n"))
	f.Fuzz(func(t *testing.T, offer []byte) {
		l := local()
		answer, r, err := l.Answer(offer)
		if err != nil {
			return
		}
		if r.Codec == "" || !r.Addr.IsValid() || r.PTime == 0 || r.Send == r.Hold {
			t.Fatalf("%+v", r)
		}
		d, err := Parse(answer)
		if err != nil {
			t.Fatalf("our answer: %v\n%s", err, answer)
		}
		o, err := Parse(offer)
		if err != nil || len(d.Media) != len(o.Media) {
			t.Fatalf("%d streams answered with %d: %v", len(o.Media), len(d.Media), err)
		}
		// Whoever offered can read the answer; two answers to one offer are one.
		again, _, _ := l.Answer(offer)
		if string(again) != string(answer) {
			t.Fatalf("differs:\n%s\n%s", answer, again)
		}
	})
}
