package nodes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hotline12345/gateway/internal/store"
)

// askFor bounds an ordinary question, so that a frozen gateway keeps nobody waiting.
const askFor = time.Second

// ErrAway says that a gateway is absent or does not answer. What it was asked to do may have been done. One
// that does not exist is store.ErrNodeUnknown.
var ErrAway = errors.New("nodes: the gateway does not answer")

// Fault is an error in words, as one gateway tells it to another. Kind is the name of an error that both
// know, or "".
type Fault struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
}

// fault makes an error of what another gateway said, one that errors.Is knows when both do.
func (c *Cluster) fault(node string, body []byte) error {
	var f Fault
	if err := json.Unmarshal(body, &f); err != nil || f.Text == "" {
		return fmt.Errorf("node %s: answered what this gateway does not understand", node)
	}
	if known, ok := c.deps.Errors[f.Kind]; ok {
		return fmt.Errorf("node %s: %w", node, known)
	}
	return fmt.Errorf("node %s: %s", node, f.Text)
}

// FaultOf puts an error into words for another gateway.
func (c *Cluster) FaultOf(err error) Fault {
	for kind, known := range c.deps.Errors {
		if errors.Is(err, known) {
			return Fault{kind, err.Error()}
		}
	}
	return Fault{Text: err.Error()}
}

// Ask asks another gateway and reads its answer into "into", unless that is nil. It waits a second at most.
func (c *Cluster) Ask(ctx context.Context, node, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	err := c.ask(ctx, node, method, path, body, into)
	c.note(node, err)
	return err
}

func (c *Cluster) ask(ctx context.Context, name, method, path string, body, into any) error {
	node, err := c.living(name)
	if err != nil {
		return err
	}
	var plain []byte
	if body != nil {
		if plain, err = json.Marshal(body); err != nil {
			return fmt.Errorf("nodes: ask %s: %w", name, err)
		}
	}
	sealed := c.prover.seal(plain, asks, c.name)
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(node.API, "/")+path, bytes.NewReader(sealed))
	if err != nil {
		return fmt.Errorf("nodes: ask %s: %w", name, err)
	}
	proof := c.prover.prove(req, name, sealed, time.Now())
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAway, name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	sealed, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswered+256))
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAway, name, err)
	}
	status := resp.Header.Get(statusHeader)
	if resp.StatusCode != http.StatusOK || status == "" {
		return fmt.Errorf("%w: %s: %s %s", ErrAway, name, resp.Status, bytes.TrimSpace(sealed[:min(len(sealed), 300)]))
	}
	answer, err := c.prover.open(sealed, answers, proof+status)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrAway, name, err)
	}
	if status != strconv.Itoa(http.StatusOK) {
		return c.fault(name, answer)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("nodes: the answer of %s: %w", name, err)
	}
	return nil
}

// living is a gateway that can be asked.
func (c *Cluster) living(name string) (store.Node, error) {
	all := c.Members()
	i := slices.IndexFunc(all, func(n store.Node) bool { return n.Name == name })
	switch {
	case i < 0 || name == c.name:
		return store.Node{}, fmt.Errorf("%w: %s", store.ErrNodeUnknown, name)
	case !all[i].Alive:
		return store.Node{}, fmt.Errorf("%w: %s was last seen %s ago", ErrAway, name, time.Since(all[i].Seen).Round(time.Second))
	case all[i].API == "":
		return store.Node{}, fmt.Errorf("%w: %s names no address", ErrAway, name)
	}
	return all[i], nil
}

// note keeps who did not answer, for the warning.
func (c *Cluster) note(node string, err error) {
	result := "ok"
	switch {
	case errors.Is(err, ErrAway) && !errors.Is(err, context.Canceled):
		result = "silent"
	case err != nil:
		result = "failed"
	}
	c.metrics.asks.WithLabelValues(result).Inc()
	c.mu.Lock()
	defer c.mu.Unlock()
	if result == "silent" {
		c.silent[node] = err
		return
	}
	delete(c.silent, node)
}

// Answer is what one gateway said.
type Answer[T any] struct {
	Node  string
	Value T
	Err   error // the gateway is absent, silent, or could not tell
}

// Gather asks every gateway of the cluster at once, this one by own, and returns their answers by name
// within a second.
func Gather[T any](ctx context.Context, c *Cluster, path string, own func(context.Context) (T, error)) []Answer[T] {
	members := c.Members()
	out := make([]Answer[T], len(members))
	var wg sync.WaitGroup
	for i, n := range members {
		wg.Go(func() {
			out[i].Node = n.Name
			if n.Name == c.name {
				out[i].Value, out[i].Err = own(ctx)
				return
			}
			out[i].Err = c.Ask(ctx, n.Name, http.MethodGet, path, nil, &out[i].Value)
		})
	}
	wg.Wait()
	return out
}

func (c *Cluster) newClient() error {
	_, conf, err := c.cfg.TLS.load()
	if err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: askFor / 2}
	c.client = &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: conf,
		TLSHandshakeTimeout: askFor, MaxIdleConnsPerHost: 8, IdleConnTimeout: idleConn, DisableCompression: true}}
	return nil
}
