package console

import (
	"bytes"
	"fmt"
	"net/http"
	"time"
)

// writeTimeout is how long a reader of a stream may take for one message.
const writeTimeout = 10 * time.Second

// events is an open stream of server-sent events.
type events struct {
	w   http.ResponseWriter
	out *http.ResponseController
}

// part sends a piece of a page, which the page puts in its place.
func (e events) part(html []byte) error {
	var b bytes.Buffer
	for line := range bytes.SplitSeq(bytes.TrimSpace(html), []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			fmt.Fprintf(&b, "data: %s\n", line)
		}
	}
	b.WriteByte('\n')
	return e.write(b.Bytes())
}

// event sends a name that the page may wait for.
func (e events) event(name string) error {
	return e.write([]byte("event: " + name + "\ndata: 1\n\n"))
}

// beat is a comment that keeps the way open.
func (e events) beat() error { return e.write([]byte(": beat\n\n")) }

func (e events) write(b []byte) error {
	if err := e.out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	return e.out.Flush()
}

// show sends a part of a page, and with it the number in the navigation.
func (c *Console) show(e events, v *visit, page, part string, data any) error {
	m := c.model(v, data)
	html, err := c.render(page, part, m)
	if err != nil {
		return err
	}
	badge, err := c.render(page, "badge", m)
	if err != nil {
		return err
	}
	return e.part(append(html, badge...))
}

// stream shows each new picture of the line to a visitor until they leave, lose their right to look,
// or the console ends. The person is asked for again at every heartbeat: who is logged out sees no more.
func (c *Console) stream(w http.ResponseWriter, v *visit, show func(events, Snapshot) error) {
	pictures, leave, err := c.feed.join()
	if err != nil {
		w.Header().Set("Retry-After", "20")
		c.message(w, v, http.StatusServiceUnavailable, "error.streams")
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a reverse proxy must not hold it back
	e := events{w: w, out: http.NewResponseController(w)}
	beat := time.NewTicker(c.cfg.Heartbeat)
	defer beat.Stop()
	err = e.beat()
	for err == nil {
		select {
		case <-v.Context().Done():
			return
		case s, ok := <-pictures:
			if !ok {
				return
			}
			err = show(e, s)
		case <-beat.C:
			if _, err := c.deps.Staff.Session(v.Context(), v.token); err != nil {
				return
			}
			err = e.beat()
		}
	}
	if v.Context().Err() == nil {
		c.metrics.slow.Inc()
	}
}
