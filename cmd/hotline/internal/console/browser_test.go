package console

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/queue"
)

// browser is a real Chromium with a profile of its own.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	problems []string // what the page's console reported
}

func newBrowser(t *testing.T, base string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("chromium is needed: apt-get install chromium")
		}
		t.Skip("no chromium")
	}
	b := &browser{t: t, base: base}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1440, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-component-update", true))
	alloc, stop := chromedp.NewExecAllocator(t.Context(), opts...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithListener(b.listen))
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // ends the browser; what it says of its end is not ours to judge
		cancel()
		stop()
	})
	b.do(ctx, chromedp.Navigate("about:blank")) // starts the browser, which lives as long as ctx
	limited, done := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(done)
	b.ctx = limited
	return b
}

// listen keeps violations of the policy, failed scripts and failed loads.
func (b *browser) listen(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *cdplog.EventEntryAdded:
		if ev.Entry.Level == "error" {
			b.problems = append(b.problems, ev.Entry.Text)
		}
	case *cdpruntime.EventExceptionThrown:
		b.problems = append(b.problems, fmt.Sprint(ev.ExceptionDetails.Text))
	}
}

func (b *browser) do(ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v (page: %v)", err, b.problems)
	}
}

func (b *browser) step(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	b.do(b.ctx, steps...)
}

func (b *browser) text(sel chromedp.CSS) string {
	b.t.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Text(sel))
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

func (b *browser) login(id string) {
	b.t.Helper()
	b.step(chromedp.Navigate(b.base+"/login"), chromedp.SendKeys(chromedp.CSS("#id"), id),
		chromedp.SendKeys(chromedp.CSS("#password"), "secret-"+id), chromedp.Click(chromedp.CSS("form[action='/login'] button")),
		chromedp.WaitVisible(chromedp.CSS("#main h2")))
}

func (b *browser) scheme(name string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
	if err != nil {
		b.t.Fatal(err)
	}
}

// shot takes a picture of the page, in the scheme, and holds it to WCAG's contrast and target sizes.
func (b *browser) shot(name, scheme string) {
	b.t.Helper()
	b.scheme(scheme)
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+"-"+scheme+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
	faults, err := chromedp.Run(b.ctx, chromedp.Evaluate[[]string](wcag))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range faults {
		b.t.Errorf("%s, %s: %s", name, scheme, f)
	}
}

// wcag lists texts under 4.5:1 (WCAG 1.4.3) and targets under 24 by 24 pixels (2.5.8; links in a
// sentence or a row are exempt).
const wcag = `(() => {
  const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); return [m[0], m[1], m[2], m.length > 3 ? m[3] : 1]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const ground = (e) => { let layers = [];
    for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 0) layers.push(c); if (c[3] === 1) break; }
    return layers.reverse().reduce((b, a) => over(a, b), [255, 255, 255, 1]); };
  const lum = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const out = [];
  const seen = (e) => e.getClientRects().length && getComputedStyle(e).visibility === "visible" && !e.closest(".visually-hidden, .skip");
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walk.nextNode());) {
    const e = n.parentElement;
    if (!n.data.trim() || !seen(e) || /SCRIPT|OPTION|DATALIST/.test(e.tagName)) continue;
    const b = ground(e), f = over(rgb(getComputedStyle(e).color), b), l = [lum(b), lum(f)].sort();
    const ratio = (Math.max(...l) + .05) / (Math.min(...l) + .05);
    if (ratio < 4.5) out.push("contrast " + ratio.toFixed(2) + " of " + JSON.stringify(n.data.trim().slice(0, 20)) + " in " + e.className);
  }
  for (const e of document.querySelectorAll("button, summary, input, select, textarea")) {
    const r = e.getBoundingClientRect();
    if (seen(e) && e.type !== "hidden" && e.type !== "checkbox" && (r.width < 24 || r.height < 24)) out.push("small target " + e.outerHTML.slice(0, 80));
  }
  for (const e of document.querySelectorAll(".card")) if (e.scrollWidth > e.clientWidth + 1) out.push("a card is too narrow: " + e.textContent.trim().slice(0, 20));
  if (document.documentElement.scrollWidth > innerWidth) out.push("the page is wider than the window");
  return out;
})()`

func TestBrowserLive(t *testing.T) {
	bench := newBench(t, time.Now())
	b := newBrowser(t, bench.srv.URL)
	b.step(chromedp.Navigate(b.base + "/login"))
	b.shot("login", "light")
	b.login("chief")
	b.step(chromedp.WaitVisible(chromedp.CSS("#call-C2")))

	// A new call, a change and an end are seen without a reload.
	bench.world.change(func() {
		bench.world.views = append(bench.world.views, session.View{CallID: "C9", Stage: session.StageFlow,
			Since: time.Now(), Started: time.Now(), Trunk: "mobile", Caller: "186****9090", Identity: "verified"})
	})
	b.step(chromedp.WaitVisible(chromedp.CSS("#call-C9 .s-flow")))
	bench.world.change(func() {
		v := &bench.world.views[len(bench.world.views)-1]
		v.Stage, v.Queue, v.Position = session.StageQueue, "general", 2
	})
	b.step(chromedp.WaitVisible(chromedp.CSS("#call-C9 .s-queue")))

	// An open menu stays open over a change; the act in it is done and said.
	b.step(chromedp.Click(chromedp.CSS("#act-1003 summary")), chromedp.WaitVisible(chromedp.CSS("#act-1003 button")))
	bench.world.change(func() { bench.world.views = bench.world.views[:len(bench.world.views)-1] })
	b.step(chromedp.WaitNotPresent(chromedp.CSS("#call-C9")), chromedp.WaitVisible(chromedp.CSS("#act-1003 button")))
	b.shot("live", "light")
	b.shot("live", "dark")
	b.step(chromedp.Click(chromedp.CSS("#act-1003 form[action$=pause] button")), chromedp.WaitVisible(chromedp.CSS("#flash .flash")),
		chromedp.WaitVisible(chromedp.CSS("#agent-1003 .a-paused")))
	if n := len(bench.world.logged()); n != 1 {
		t.Errorf("%d acts in the log", n)
	}

	b.step(chromedp.Navigate(b.base+"/calls/C2"), chromedp.WaitVisible(chromedp.CSS(".ladder")))
	b.shot("call", "light")
	b.step(chromedp.Click(chromedp.CSS("button[name=language]")), chromedp.WaitVisible(chromedp.CSS("html[lang=en] .ladder")),
		chromedp.Navigate(b.base+"/live"), chromedp.WaitVisible(chromedp.CSS("#call-C2")))
	b.shot("live-en", "light")
	b.step(chromedp.EmulateViewport(360, 800))
	b.shot("live-narrow", "light") // WCAG 1.4.10: no scrolling in two directions
	b.step(chromedp.ResetViewport())
	b.check()
}

// check reports what the page's console reported, but for what holds one of the words.
func (b *browser) check(expected ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		if !slices.ContainsFunc(expected, func(word string) bool { return strings.Contains(p, word) }) {
			b.t.Errorf("the page's console: %s", p)
		}
	}
}

func TestBrowserAgent(t *testing.T) {
	bench := newBench(t, time.Now())
	call := bench.world.views[0]
	bench.world.views = bench.world.views[1:]
	bench.world.agents[0].State = queue.Idle
	b := newBrowser(t, bench.srv.URL)
	b.login("1001")
	b.shot("agent-ready", "light")

	// A call comes in: who it is is shown, and the form opens.
	bench.world.change(func() {
		bench.world.views = append(bench.world.views, call)
		bench.world.agents[0].State = queue.Talk
	})
	b.step(chromedp.WaitVisible(chromedp.CSS("#facts-form")), chromedp.WaitVisible(chromedp.CSS(".notice-watch")))
	if got := b.text(".caller-number"); !strings.Contains(got, "138****5678") {
		t.Errorf("caller %q", got)
	}

	// What is being written outlives a change of the call.
	summary := chromedp.CSS(`[name="request.0.summary"]`)
	b.step(chromedp.SendKeys(summary, "路灯不亮"))
	bench.world.change(func() { bench.world.views[len(bench.world.views)-1].Banner = session.BannerLong })
	b.step(chromedp.WaitVisible(chromedp.CSS("#desk .notice-watch")), chromedp.SetValue(chromedp.CSS(`[name="request.0.kind"]`), "opinion"))

	// Another request is marked where the recording stands.
	b.step(chromedp.Click(chromedp.CSS("button[value=add]")), chromedp.WaitVisible(chromedp.CSS(`[name="request.1.summary"]`)))
	b.step(chromedp.WaitVisible(chromedp.CSS(`[name="request.1.kind"]:focus`)))
	if got, err := chromedp.Run(b.ctx, chromedp.Value(summary)); err != nil || got != "路灯不亮" {
		t.Errorf("written %q, %v", got, err)
	}
	b.step(chromedp.SendKeys(chromedp.CSS(`[name="request.1.summary"]`), "井盖缺失"), chromedp.SetValue(chromedp.CSS(`[name="request.1.kind"]`), "report"),
		chromedp.SendKeys(chromedp.CSS(`[name="request.1.urgent"]`), "危及人身安全"), chromedp.SetValue(chromedp.CSS("#outcome"), "registered"),
		chromedp.Click(chromedp.CSS("#feedback")), chromedp.Click(chromedp.CSS("#facts-form .end button")),
		chromedp.WaitVisible(chromedp.CSS("#name-error")))
	b.shot("agent-wrong", "light")

	// Art. 7: an answer needs a name and a contact; then it is kept.
	b.step(chromedp.SendKeys(chromedp.CSS("#name"), "张三"), chromedp.SendKeys(chromedp.CSS("#contact"), "13812345678"),
		chromedp.Click(chromedp.CSS("#facts-form .end button")), chromedp.WaitVisible(chromedp.CSS("#facts .flash:not(.flash-bad)")))
	facts := bench.world.Views()[len(bench.world.views)-1].Facts
	if len(facts.Requests) != 2 || facts.Requests[1].Mark != 95250*time.Millisecond || facts.By != "1001" || facts.Name != "张三" {
		t.Errorf("facts %+v", facts)
	}

	emergencyAndEnd(t, bench, b)
}

// emergencyAndEnd is the rest of the call: two steps to a service, and the end of the wrap-up.
func emergencyAndEnd(t *testing.T, bench *bench, b *browser) {
	t.Helper()
	b.step(chromedp.Click(chromedp.CSS("#service-119 summary")), chromedp.WaitVisible(chromedp.CSS("#service-119 button")))
	b.shot("agent-talk", "light")
	b.shot("agent-talk", "dark")
	b.step(chromedp.EmulateViewport(360, 800))
	b.shot("agent-narrow", "light")
	b.step(chromedp.ResetViewport())
	b.step(chromedp.Click(chromedp.CSS("#service-119 button")), chromedp.WaitVisible(chromedp.CSS("#flash .flash")))
	if did := bench.world.done(); len(did) != 1 || did[0] != "emergency 119 C2" {
		t.Errorf("did %v", did)
	}

	// Wrap-up ends with the form saved; without a call the form goes.
	bench.world.change(func() {
		bench.world.views[len(bench.world.views)-1].Stage = session.StageWrapUp
		bench.world.agents[0].State, bench.world.agents[0].Until = queue.Wrapup, time.Now().Add(40*time.Second)
	})
	b.step(chromedp.WaitVisible(chromedp.CSS("#desk button[value=finish]")))
	b.shot("agent-wrapup", "light")
	b.step(chromedp.Click(chromedp.CSS("#desk button[value=finish]")), chromedp.WaitVisible(chromedp.CSS("#facts:not(:has(.flash))")))
	if did := bench.world.done(); did[len(did)-1] != "finish C2" {
		t.Errorf("did %v", did)
	}
	bench.world.change(func() { bench.world.views = bench.world.views[:len(bench.world.views)-1] })
	b.step(chromedp.WaitNotPresent(chromedp.CSS("#facts-form")))
	b.check("422") // the form that was refused
}
