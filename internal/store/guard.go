package store

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// guard times each command, bounds it, and, with a breaker, refuses it at once while Redis is away. It is a
// hook rather than a redis.Limiter, since only the single client takes one of those.
type guard struct {
	metrics *metrics
	timeout time.Duration // of each dial, read and write
	breaker *breaker      // nil never refuses
}

// breaker refuses what would wait for a Redis that does not answer. One failure opens it, and whoever reads
// tripped asks Redis at once and closes it with the answer: one caller pays one time-out, none is used to
// probe, and an alarm that was false lasts a round trip.
type breaker struct {
	open    atomic.Bool
	tripped chan struct{} // holds one
	metrics *metrics
}

func newBreaker(m *metrics) *breaker {
	return &breaker{tripped: make(chan struct{}, 1), metrics: m}
}

func (b *breaker) trip() {
	if !b.open.CompareAndSwap(false, true) {
		return
	}
	b.metrics.open.Set(1)
	select {
	case b.tripped <- struct{}{}:
	default: // the last notice is not read yet
	}
}

func (b *breaker) close() {
	b.metrics.open.Set(0)
	b.open.Store(false)
}

// DialHook leaves dialling alone.
func (g *guard) DialHook(next redis.DialHook) redis.DialHook { return next }

// inside marks the context of a command that passed the guard. go-redis sends the greeting of a new
// connection through the hooks as well, within the command that needed the connection: it is no operation
// of its own. The store's own question whether Redis is back passes the same way.
type inside struct{}

func pass(ctx context.Context) context.Context { return context.WithValue(ctx, inside{}, true) }

// ProcessHook guards one command.
func (g *guard) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := g.try(ctx, cmd, func(ctx context.Context) error { return next(ctx, cmd) })
		if errors.Is(err, ErrAway) {
			cmd.SetErr(err)
		}
		return err
	}
}

// ProcessPipelineHook guards a pipeline; its first command gives the operation's name.
func (g *guard) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := g.try(ctx, cmds[0], func(ctx context.Context) error { return next(ctx, cmds) })
		if errors.Is(err, ErrAway) {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
		}
		return err
	}
}

func (g *guard) try(ctx context.Context, cmd redis.Cmder, do func(context.Context) error) error {
	if ctx.Value(inside{}) != nil {
		return do(ctx)
	}
	op := g.metrics.op(cmd)
	if g.breaker != nil && g.breaker.open.Load() {
		g.metrics.refuse(op)
		return ErrAway
	}
	start := time.Now()
	bounded, cancel := context.WithTimeout(pass(ctx), g.patience(cmd))
	defer cancel()
	err := do(bounded)
	took := time.Since(start)
	// A caller whose own deadline was shorter than the time-out has learnt nothing of Redis.
	if g.breaker != nil && Away(err) && (ctx.Err() == nil || took >= g.timeout) {
		g.breaker.trip()
	}
	g.metrics.observe(op, took, err)
	return err
}

// patience is how long a command may take in all, a new connection and what a cluster redirects counted. A
// blocking read may block for its time besides; go-redis itself would give it ten seconds more.
func (g *guard) patience(cmd redis.Cmder) time.Duration {
	patience := 2 * g.timeout
	if cmd.Name() != "xread" {
		return patience
	}
	args := cmd.Args()
	for i := 1; i+1 < len(args); i++ {
		ms, ok := args[i+1].(int64)
		if name, named := args[i].(string); named && ok && name == "block" {
			return patience + time.Duration(ms)*time.Millisecond
		}
	}
	return patience
}

// cannot are the beginnings of the answers of a server that is up and yet cannot serve: it starts, lost its
// primary or its part of the cluster, was made a replica by a failover, is full, or runs a script without end.
var cannot = []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS", "MOVED", "ASK",
	"OOM", "BUSY ", "ERR max number of clients"}

// Away tells whether an error means that Redis could not be asked or cannot serve, rather than that
// it answered no. A command whose error is Away may have run.
func Away(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) || errors.Is(err, context.Canceled) {
		return false
	}
	if answer, ok := errors.AsType[redis.Error](err); ok {
		for _, prefix := range cannot {
			if strings.HasPrefix(answer.Error(), prefix) {
				return true
			}
		}
		return false
	}
	return true
}
