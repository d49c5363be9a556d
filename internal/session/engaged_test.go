package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// engagedPhone is a backend that refuses offers to 1001.
type engagedPhone struct{ call.Switch }

func (e engagedPhone) Dial(ctx context.Context, to call.Endpoint, opts call.DialOptions) (call.Leg, error) {
	if to.Name == "1001" && opts.Exclusive {
		return nil, &call.DialError{Cause: call.CauseBusy, Status: 486, Err: &call.Engaged{Token: "other"}}
	}
	return e.Switch.Dial(ctx, to, opts)
}

// declines hears what is declined.
type declines struct {
	Queue
	offers chan Offer
}

func (d declines) Enter(ctx context.Context, e QueueEntry) (Ticket, error) {
	t, err := d.Queue.Enter(ctx, e)
	return declined{t, d.offers}, err
}

type declined struct {
	Ticket
	offers chan Offer
}

func (d declined) Decline(ctx context.Context, o Offer, why DeclineReason) error {
	d.offers <- o
	return d.Ticket.Decline(ctx, o, why)
}

func TestAnEngagedPhoneIsLeftAlone(t *testing.T) {
	in(t, func(r *rig) {
		second, offers := r.sw.Phone("1002"), make(chan Offer, 1)
		r.m.Switch, r.m.Queue = engagedPhone{r.m.Switch}, declines{r.m.Queue, offers}
		r.dial()
		ticket := <-r.tickets
		ticket.offer("1001")
		if o := <-offers; o.Holder != "other" || o.Token != "tok" {
			t.Errorf("declined %+v", o)
		}
		ticket.offer("1002")
		second.Rung()
		second.PickUp()
		synctest.Wait()
		if len(r.declined) != 1 || r.declined[0] != DeclineEngaged || len(r.entries) != 1 {
			t.Errorf("declined %v, entered %d times", r.declined, len(r.entries))
		}
		second.Hang()
		r.settled(3 * time.Minute)
	})
}
