package emergency

import (
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/session"
)

func listener(t *testing.T) *Listener {
	t.Helper()
	d, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return NewListener(d)
}

var noon = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)

func TestPartialMustLast(t *testing.T) {
	l := listener(t)
	at := noon
	for _, said := range []string{"我", "我家", "我家厨房着", "我家厨房着火了"} {
		at = at.Add(200 * time.Millisecond)
		if v := l.Partial(said, at); v.Action != None {
			t.Fatalf("%s: %v at once", said, v.Action)
		}
	}
	wait := l.Wait(at)
	if wait <= 0 || wait > Stable {
		t.Fatalf("waits %v", wait)
	}
	if v := l.Due(at.Add(wait - 1)); v.Action != None {
		t.Error("it came before its time")
	}
	if v := l.Due(at.Add(wait)); v.Action != Transfer || v.Service != session.Fire {
		t.Errorf("%v %s", v.Action, v.Service)
	}
	if v := l.Partial("我家厨房着火了快来人", at.Add(2*Stable)); v.Action != None || l.Wait(at.Add(2*Stable)) != 0 {
		t.Error("it came twice in a sentence")
	}
}

func TestPartialTakenBack(t *testing.T) {
	l := listener(t)
	l.Partial("我家着火了", noon)
	l.Partial("我家着火了已经扑灭了我想问保险怎么赔", noon.Add(Stable/2))
	if v := l.Due(noon.Add(2 * Stable)); v.Action == Transfer {
		t.Errorf("%v after the fire was out", v.Action)
	}
}

func TestFinalCountsAtOnce(t *testing.T) {
	l := listener(t)
	if v := l.Final("你好我想问一下社保卡怎么补办", noon); v.Action != None {
		t.Errorf("%v for a card", v.Action)
	}
	if v := l.Final("哎呀我妈突然晕倒了叫不醒", noon.Add(time.Second)); v.Action != Transfer || v.Service != session.Medical {
		t.Errorf("%v %s", v.Action, v.Service)
	}
}

func TestDeclined(t *testing.T) {
	l := listener(t)
	v := l.Final("我家厨房着火了", noon)
	if v.Action != Transfer {
		t.Fatal(v.Action)
	}
	l.Decline(v, noon)
	if v := l.Final("我家厨房着火了", noon.Add(CoolDown-1)); v.Action != None {
		t.Error("the same words at once")
	}
	if v := l.Final("楼道里全是浓烟我们出不去了", noon.Add(CoolDown-1)); v.Action != Transfer {
		t.Error("new words are not heard")
	}
	if v := l.Final("我妈突然晕倒了叫不醒", noon.Add(time.Second)); v.Action != Transfer {
		t.Error("another service is not heard")
	}
	if v := l.Final("我家厨房着火了", noon.Add(CoolDown)); v.Action != Transfer {
		t.Error("not even after the time")
	}
}
