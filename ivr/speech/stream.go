package speech

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/hotline12345/gateway/internal/call"
)

// piece is how much sound a message has, in samples: 100 ms.
const piece = call.Rate / 10

// ahead is how many messages may lack their answer: no more than the tape holds.
const ahead = tapeLength / piece

// mostAnswers is how many answers a second are taken, several times what is asked.
const mostAnswers = 100

// Stream is one caller who is heard. Write is for one goroutine.
type Stream struct {
	r       *Recogniser
	voice   voice
	tape    tape
	results chan Result
	end     context.CancelFunc
}

// Write takes A-law of 8 kHz. It never blocks: what the server has no time for is dropped and counted.
func (s *Stream) Write(alaw []byte) {
	if spoken := s.voice.hear(alaw); spoken != nil {
		if lost := s.tape.write(spoken); lost > 0 {
			s.r.metrics.lost.Add(float64(lost) / call.Rate)
		}
	}
}

// Results are the texts in order. Whoever does not read them slows the server down, and nothing else. The channel is
// closed after Close.
func (s *Stream) Results() <-chan Result { return s.results }

// Close ends the stream; a second call does nothing. The server is told in the background.
func (s *Stream) Close() { s.end() }

// run keeps a connection until the stream is closed.
func (s *Stream) run(ctx context.Context) {
	defer close(s.results)
	wait := s.r.backoff
	for {
		began := time.Now()
		err := s.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		s.r.told(err)
		if time.Since(began) > longest {
			wait = s.r.backoff
		}
		pause := time.NewTimer(wait/2 + rand.N(wait/2+1)) // all calls lose a server at once, and must not come back at once
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
		wait = min(2*wait, longest)
	}
}

// connect is one connection, from its making to its end.
func (s *Stream) connect(ctx context.Context) error {
	conn, err := s.r.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }() // it has failed, or its end was told
	s.r.open.Add(1)
	defer s.r.open.Add(-1)
	s.r.told(nil)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c := &connection{Stream: s, conn: conn, protocol: &vosk{hz: s.r.cfg.Vosk.Rate}, answered: make(chan struct{}, 1)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		stop(s.r.Contain(func() error { return c.read(ctx) }))
	}()
	err = c.write(ctx)
	_ = conn.CloseNow() // which ends the reading
	stop(err)
	<-read
	return context.Cause(ctx)
}

// connection is a stream's way to the server.
type connection struct {
	*Stream
	protocol
	conn     *websocket.Conn
	answered chan struct{} // 1: an answer came

	mu    sync.Mutex
	asked []time.Time // of the messages that lack their answer
}

// write sends speech as it comes, until ctx ends; then it tells the end.
func (c *connection) write(ctx context.Context) error {
	if err := c.send(ctx, websocket.MessageText, c.hello()); err != nil {
		return err
	}
	c.tape.rewind()
	sound := newPCM(c.rate())
	alaw, message := make([]byte, piece), make([]byte, 0, 4*piece)
	for {
		for c.mayAsk() && c.tape.read(alaw) {
			c.asks()
			if err := c.send(ctx, websocket.MessageBinary, sound.append(message, alaw)); err != nil {
				return err
			}
			c.r.metrics.sent.Add(float64(piece) / call.Rate)
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
}

// wait returns when there may be something to send, or an error when nothing is to be any more.
func (c *connection) wait(ctx context.Context) error {
	slow := time.NewTimer(c.patience())
	defer slow.Stop()
	select {
	case <-ctx.Done():
		if !errors.Is(context.Cause(ctx), context.Canceled) {
			return context.Cause(ctx) // the reading failed
		}
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return errors.Join(context.Canceled, c.send(bye, websocket.MessageText, c.bye()))
	case <-slow.C:
		return errSlow
	case <-c.tape.more:
	case <-c.answered:
	}
	return nil
}

func (c *connection) send(ctx context.Context, kind websocket.MessageType, b []byte) error {
	sending, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := c.conn.Write(sending, kind, b)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case sending.Err() != nil:
		return errors.Join(errSlow, err)
	default:
		return errors.Join(errGone, err)
	}
}

// mayAsk tells whether the server keeps up.
func (c *connection) mayAsk() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.asked) < ahead
}

func (c *connection) asks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, time.Now())
}

// gotAnswer is the end of the oldest message's waiting.
func (c *connection) gotAnswer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) > 0 {
		c.r.metrics.replies.Observe(time.Since(c.asked[0]).Seconds())
		c.asked = c.asked[1:]
	}
	select {
	case c.answered <- struct{}{}:
	default:
	}
}

// patience is how long the oldest message may still wait.
func (c *connection) patience() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.asked) == 0 {
		return time.Hour
	}
	return max(patience-time.Since(c.asked[0]), 0)
}

// read hands answers on until the connection ends. Reading outlasts ctx, since a read that is given up closes the
// connection, and the end is yet to be told.
func (c *connection) read(ctx context.Context) error {
	var second time.Time
	answers := 0
	for {
		_, answer, err := c.conn.Read(context.WithoutCancel(ctx))
		if err != nil {
			return errors.Join(errGone, err)
		}
		now := time.Now()
		if now.Sub(second) >= time.Second {
			second, answers = now, 0
		}
		if answers++; answers > mostAnswers {
			return errFlood
		}
		c.gotAnswer()
		result, ok, err := c.protocol.read(answer)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := c.give(ctx, result, now); err != nil {
			return err
		}
	}
}

// give hands a result on.
func (c *connection) give(ctx context.Context, result Result, at time.Time) error {
	result.At = at
	kind := "partial"
	if result.Final {
		kind = "final"
	}
	c.r.metrics.results.WithLabelValues(kind).Inc()
	select {
	case c.results <- result:
		return nil
	case <-ctx.Done():
		return errGone
	}
}
