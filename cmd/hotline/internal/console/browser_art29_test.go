package console

import (
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestBrowserArticle29 takes pictures of the pages of Article 29 in both languages, and holds them to WCAG.
func TestBrowserArticle29(t *testing.T) {
	bench := newBench(t, time.Now())
	b := newBrowser(t, bench.srv.URL)
	b.login("chief")
	for _, lang := range []string{"zh", "en"} {
		if lang == "en" {
			b.english("#main h2")
		}
		for name, path := range map[string]string{"art29": "/art29", "matter": "/art29/" + matterID, "appeal": "/art29/f" + matterID[1:]} {
			b.step(chromedp.Navigate(b.base+path), chromedp.WaitVisible(chromedp.CSS("#main h2")))
			b.shot(name+"-"+lang, "light")
		}
	}
	b.check()
}
