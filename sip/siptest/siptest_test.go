package siptest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestTones(t *testing.T) {
	for _, hz := range []float64{440, 697, 1000, 1633} {
		pcm := Tone(hz, time.Second)
		for name, heard := range map[string][]int16{
			"linear": pcm, "A-law": FromALaw(ALaw(pcm)), "µ-law": FromMuLaw(MuLaw(pcm)),
		} {
			if s := Share(heard, hz); s < 0.98 {
				t.Errorf("%s at %v Hz: share %.3f, want 0.98", name, hz, s)
			}
			if s := Share(heard, hz+300); s > 0.01 {
				t.Errorf("%s at %v Hz: %.3f beside it", name, hz, s)
			}
		}
	}
}

func TestCodesAreTheirOwnInverse(t *testing.T) {
	for b := range 256 {
		if got := alaw(unALaw(byte(b))); got != byte(b) {
			t.Errorf("A-law %#x comes back as %#x", b, got)
		}
		if got := mulaw(unMuLaw(byte(b))); got != byte(b) && b != 0x7F { // µ-law has two zeros
			t.Errorf("µ-law %#x comes back as %#x", b, got)
		}
	}
	if alaw(0) != 0xD5 || mulaw(0) != 0xFF {
		t.Errorf("silence is %#x and %#x, want 0xd5 and 0xff", alaw(0), mulaw(0))
	}
}

func TestNetworkChances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := n.Listen(at("10.0.0.1:5060")), n.Listen(at("10.0.0.2:5060"))
		defer a.Close()
		defer b.Close()
		n.SetLink(at("10.0.0.1:5060"), at("10.0.0.2:5060"),
			Link{Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Delay: 20 * time.Millisecond})
		const sent = 5000
		for i := range sent {
			if _, err := a.WriteTo(fmt.Append(nil, i), b.LocalAddr()); err != nil {
				t.Fatal(err)
			}
		}
		seen, swapped, last := make(map[int]int), 0, -1
		buf := make([]byte, 16)
		for {
			b.SetReadDeadline(time.Now().Add(time.Second))
			k, _, err := b.ReadFrom(buf)
			if err != nil {
				if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
					t.Fatal(err)
				}
				break
			}
			var v int
			fmt.Sscan(string(buf[:k]), &v)
			if seen[v]++; v < last {
				swapped++
			}
			last = v
		}
		twice := 0
		for _, c := range seen {
			twice += c - 1
		}
		t.Logf("of %d: %d came, %d twice, %d out of order", sent, len(seen), twice, swapped)
		if lost := sent - len(seen); lost < 300 || lost > 700 || twice < 300 || twice > 700 || swapped == 0 {
			t.Errorf("the chances are not those that were set")
		}
	})
}

func TestNetworkKeepsOrderAtOneInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(1)
		a, b := n.Listen(at("10.0.0.1:1")), n.Listen(at("10.0.0.2:1"))
		n.SetDefault(Link{Delay: time.Millisecond})
		for i := range 100 {
			a.WriteTo([]byte{byte(i)}, b.LocalAddr())
		}
		buf := make([]byte, 8)
		for i := range 100 {
			if _, _, err := b.ReadFrom(buf); err != nil || buf[0] != byte(i) {
				t.Fatalf("got %d (%v), want %d", buf[0], err, i)
			}
		}
		go func() { time.Sleep(time.Second); b.Close() }()
		if _, _, err := b.ReadFrom(buf); err == nil {
			t.Fatal("a closed connection was read")
		}
	})
}

func TestAuthorize(t *testing.T) {
	// The worked example of RFC 2617 section 3.5, without qop, is RFC 2069's with a known answer.
	got := Authorize(`Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`,
		"Mufasa", "Circle Of Life", "GET", "/dir/index.html")
	const want = `response="670fd8c2df070c60b045671b8b24ff02"`
	if m := ParseMessage("X\r\nA: " + got + "\r\n\r\n"); m.Get("a") == "" || got[len(got)-len(want):] != want {
		t.Errorf("got %s", got)
	}
}
