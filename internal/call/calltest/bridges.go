package calltest

import (
	"context"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// The cases of bridges.

// room puts a caller and agents into a bridge.
func (b *bench) room(members ...call.Member) (call.Bridge, []call.Leg, []Peer) {
	b.t.Helper()
	leg, p := b.place()
	legs, peers := []call.Leg{leg}, []Peer{p}
	for i := range members[1:] {
		l, q := b.join([]string{"1001", "1002", "1003"}[i])
		legs, peers = append(legs, l), append(peers, q)
	}
	br, err := b.Switch().Bridge(context.Background(), "test")
	b.must(err)
	for i, m := range members {
		b.must(br.Add(legs[i], m))
		peers[i].Speak([]float64{700, 1100, 1700}[i])
	}
	b.t.Cleanup(func() { b.must(br.Close()) })
	return br, legs, peers
}

var talker = call.Member{Role: call.Talk}

func bridged(b *bench) {
	br, legs, p := b.room(talker, call.Member{Role: call.Talk, Staff: true})
	b.hears(p[0], 1100, true, "the caller")
	b.hears(p[1], 700, true, "the agent")
	b.must(br.Remove(legs[0]))
	b.hears(p[0], 1100, false, "the caller, taken out")
}

func three(b *bench) {
	_, _, p := b.room(talker, talker, talker)
	b.hears(p[0], 1100, true, "the first of the second")
	b.hears(p[0], 1700, true, "the first of the third")
	b.hears(p[1], 700, true, "the second of the first")
	b.hears(p[2], 1100, true, "the third of the second")
	b.hears(p[2], 1700, false, "the third of itself")
}

func listener(b *bench) {
	_, _, p := b.room(talker, talker, call.Member{Role: call.Listen})
	b.hears(p[2], 700, true, "the listener")
	b.hears(p[0], 1700, false, "the caller of the listener")
}

func whisper(b *bench) {
	_, _, p := b.room(talker, call.Member{Role: call.Talk, Staff: true}, call.Member{Role: call.Whisper})
	b.hears(p[1], 1700, true, "the agent of the whisper")
	b.hears(p[0], 1700, false, "the caller of the whisper")
	b.hears(p[0], 1100, true, "the caller of the agent")
}

func hold(b *bench) {
	br, legs, p := b.room(talker, talker)
	b.must(br.Hold(legs[0], Clip("music", 500, time.Second)))
	b.hears(p[0], 500, true, "the caller on hold")
	b.hears(p[1], 700, false, "the agent of the held caller")
	b.must(br.Add(legs[0], talker))
	b.hears(p[0], 1100, true, "the caller, back")
	b.hears(p[1], 700, true, "the agent of the caller, back")
}

func promptInBridge(b *bench) {
	_, legs, p := b.room(talker, talker)
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(legs[0].Context())
	go func() { done <- legs[0].Loop(ctx, Clip("word", 500, 2*time.Second)) }()
	b.hears(p[0], 500, true, "the caller of the prompt")
	b.hears(p[0], 1100, false, "the caller of the agent meanwhile")
	b.hears(p[1], 500, false, "the agent of the prompt")
	stop()
	<-done
	b.hears(p[0], 1100, true, "the caller of the agent again")
}

func movedWhilePlaying(b *bench) {
	leg, p := b.place()
	far, q := b.join("1001")
	ctx, stop := context.WithCancel(leg.Context())
	done := make(chan error, 1)
	go func() { done <- leg.Loop(ctx, Clip("music", 500, 2*time.Second)) }()
	b.hears(p, 500, true, "the caller of the music")
	br, err := b.Switch().Bridge(context.Background(), "test")
	b.must(err)
	b.must(br.Add(far, talker))
	b.must(br.Add(leg, talker))
	q.Speak(1100)
	b.hears(p, 500, true, "the caller of the music, in the bridge")
	stop()
	<-done
	b.hears(p, 1100, true, "the caller of the agent")
	b.must(br.Close())
}
