package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

// guard times each command and, with a breaker, refuses it at once while Redis is away. It is a hook
// rather than a redis.Limiter, since only the single client takes one of those.
type guard struct {
	metrics *metrics
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}] // nil never refuses
}

// DialHook leaves dialling alone.
func (g *guard) DialHook(next redis.DialHook) redis.DialHook { return next }

// inside marks the context of a command that passed the guard. go-redis sends the greeting of a new
// connection through the hooks as well, within the command that needed the connection: it must not
// ask the breaker again, which lets one command pass when it probes.
type inside struct{}

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
	op, report := g.metrics.op(cmd), func(error) {}
	if g.breaker != nil {
		done, err := g.breaker.Allow()
		if err != nil {
			g.metrics.refuse(op)
			return ErrAway
		}
		report = done
	}
	start := time.Now()
	err := do(context.WithValue(ctx, inside{}, true))
	report(err)
	g.metrics.observe(op, time.Since(start), err)
	return err
}

// Away tells whether an error means that Redis could not be asked or cannot serve, rather than that
// it answered no. A command whose error is Away may have run.
func Away(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) || errors.Is(err, context.Canceled) {
		return false
	}
	if answer, ok := errors.AsType[redis.Error](err); ok {
		// These answers come from a server that is up and yet cannot serve: it starts, lost its
		// primary, or was made a replica by a failover.
		for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MISCONF"} {
			if strings.HasPrefix(answer.Error(), prefix) {
				return true
			}
		}
		return false
	}
	return true
}
