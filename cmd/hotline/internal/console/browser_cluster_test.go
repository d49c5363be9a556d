package console

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/hotline12345/gateway/queue"
)

// english changes the language of the page that is open.
func (b *browser) english(sel chromedp.CSS) {
	b.t.Helper()
	b.step(chromedp.Click(chromedp.CSS("button[name=language]")), chromedp.WaitVisible(chromedp.CSS("html[lang=en] ")+sel))
}

// shots takes the page wide and narrow (WCAG 1.4.10: no scrolling in two directions).
func (b *browser) shots(name string) {
	b.t.Helper()
	b.step(chromedp.EmulateViewport(1280, 800))
	b.shot(name, "light")
	b.shot(name, "dark")
	b.step(chromedp.EmulateViewport(400, 800))
	b.shot(name+"-narrow", "light")
	b.step(chromedp.ResetViewport())
}

func TestBrowserCallBacks(t *testing.T) {
	bench := newBench(t, time.Now())
	bench.world.owe(time.Now())
	lead := newBrowser(t, bench.srv.URL)
	lead.login("chief")
	lead.step(chromedp.Navigate(lead.base+"/callbacks"), chromedp.WaitVisible(chromedp.CSS("#task-t1 .very-late")))
	lead.shots("callbacks")

	// A task that is half closed stays so over a change, and is then closed with its reason.
	note := chromedp.CSS("#note-t4")
	lead.step(chromedp.Click(chromedp.CSS("#close-t4 summary")), chromedp.WaitVisible(note), chromedp.SendKeys(note, "已通过微信答复"),
		chromedp.SetValue(chromedp.CSS("#reason-t4"), "declined"))
	bench.world.change(func() {
		more := bench.world.tasks[1]
		more.ID, more.Since = "t9", time.Now()
		bench.world.tasks = append(bench.world.tasks, more)
	})
	lead.step(chromedp.WaitVisible(chromedp.CSS("#task-t9")), chromedp.WaitVisible(note))
	if got := lead.text("#owed"); got != "5" {
		t.Errorf("%s in the navigation", got)
	}
	lead.shot("callbacks-close", "light")
	lead.step(chromedp.Click(chromedp.CSS("#close-t4 button")), chromedp.WaitVisible(chromedp.CSS("#flash .flash")),
		chromedp.WaitNotPresent(chromedp.CSS("#task-t4")))
	if i := slices.IndexFunc(bench.world.shut, func(b queue.CallBack) bool { return b.ID == "t4" }); i < 0 ||
		bench.world.shut[i].Note != "declined: 已通过微信答复" {
		t.Errorf("closed %+v", bench.world.shut)
	}
	lead.step(chromedp.Click(chromedp.CSS(".tabs a[href$=closed]")), chromedp.WaitVisible(chromedp.CSS("#task-t7")))
	lead.shots("callbacks-closed")
	lead.english("#task-t7")
	lead.shots("callbacks-closed-en")
	lead.step(chromedp.Navigate(lead.base+"/callbacks"), chromedp.WaitVisible(chromedp.CSS("#task-t1")))
	lead.shots("callbacks-en")
	lead.check()
	callBackByAgent(t, bench, newBrowser(t, bench.srv.URL))
}

// callBackByAgent is the agent's side: the next caller stands on the desk, and a click rings the phone.
func callBackByAgent(t *testing.T, bench *bench, b *browser) {
	t.Helper()
	bench.world.change(func() {
		bench.world.agents[0].State, bench.world.views = queue.Idle, bench.world.views[1:]
	})
	b.login("1001")
	b.step(chromedp.WaitVisible(chromedp.CSS("#h-owed")))
	if got := b.text("#desk .caller-number"); !strings.Contains(got, "139****0021") {
		t.Errorf("next is %q", got)
	}
	b.shots("agent-owed")
	b.step(chromedp.Click(chromedp.CSS(".bar a[href='/callbacks']")), chromedp.WaitVisible(chromedp.CSS("#task-t1 button")))
	b.shots("callbacks-agent")

	// Somebody else was faster: that is said where it was asked, and the list goes on.
	bench.world.mu.Lock()
	bench.world.tasks = slices.DeleteFunc(bench.world.tasks, func(c queue.CallBack) bool { return c.ID == "t2" })
	bench.world.mu.Unlock()
	b.step(chromedp.Click(chromedp.CSS("#task-t2 button")), chromedp.WaitVisible(chromedp.CSS("#flash .flash-bad")),
		chromedp.WaitNotPresent(chromedp.CSS("#task-t2")))
	b.step(chromedp.Click(chromedp.CSS("#task-t1 button")), chromedp.WaitVisible(chromedp.CSS("#facts-form")))
	if got := b.text(".caller-number"); !strings.Contains(got, "139****0021") {
		t.Errorf("the desk shows %q", got)
	}
	b.shot("agent-callingback", "light")
	b.check("404")
}

func TestBrowserNodes(t *testing.T) {
	bench := newBench(t, time.Now())
	bench.world.join(time.Now())
	b := newBrowser(t, bench.srv.URL)
	b.login("root")
	b.step(chromedp.Click(chromedp.CSS(".bar a[href='/nodes']")), chromedp.WaitVisible(chromedp.CSS("#node-gw-3.row-danger")))
	b.shots("nodes")

	// Draining needs two clicks, and the page follows.
	b.step(chromedp.Click(chromedp.CSS("#drain-gw-1 summary")), chromedp.WaitVisible(chromedp.CSS("#drain-gw-1 button")))
	b.shot("nodes-drain", "light")
	b.step(chromedp.Click(chromedp.CSS("#drain-gw-1 button")), chromedp.WaitVisible(chromedp.CSS("#flash .flash")),
		chromedp.WaitVisible(chromedp.CSS("#node-gw-1 .n-draining")))
	b.step(chromedp.Click(chromedp.CSS("#drain-gw-4 summary")), chromedp.WaitVisible(chromedp.CSS("#drain-gw-4 .flash-bad")))
	b.step(chromedp.Click(chromedp.CSS("#forget-gw-3 summary")), chromedp.WaitVisible(chromedp.CSS("#forget-gw-3 button")),
		chromedp.Click(chromedp.CSS("#forget-gw-3 button")), chromedp.WaitNotPresent(chromedp.CSS("#node-gw-3")))
	bench.world.change(func() { bench.world.nodes[2].Alive = false })
	b.step(chromedp.WaitVisible(chromedp.CSS("#node-gw-4.row-danger")))
	b.english("#node-gw-1")
	b.shots("nodes-en")

	// The live page tells which gateway has a call and a trunk.
	b.step(chromedp.Navigate(b.base+"/live"), chromedp.WaitVisible(chromedp.CSS("#trunk-mobile-gw-1")))
	b.shots("live-gateways")
	b.check()
}
