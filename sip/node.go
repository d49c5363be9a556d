package sip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/internal/trust"
)

const (
	// nodePatience is how long another gateway may take for its first response to an INVITE.
	nodePatience = time.Second
	// nodeBeat is how often the gateways that calls stand with are asked whether they live, nodePing how
	// long one may take to answer, and nodeLost how long one that the cluster misses may be silent before
	// its calls are ended. A phone has to be free of them before its agent's wrap-up is over, which the
	// queue begins when it misses the gateway.
	nodeBeat = time.Second
	nodePing = time.Second
	nodeLost = 5 * time.Second
)

// load reads the certificate and the authority. Both directions use them: a gateway shows its own to those
// whom it calls and to those who call, and takes any that the authority has signed, at whatever address.
func (t NodesTLS) load() (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("cert_file: %w; write a PEM certificate, and its key as key_file", err)
	}
	authority, err := trust.Roots(t.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w: that of the authority of all gateways", err)
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    authority,
		// The name is not checked, since gateways are found by address: whoever has a certificate of
		// the authority is one. VerifyConnection checks that.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(c tls.ConnectionState) error {
			return signed(c, authority)
		},
	}, nil
}

// signed checks that a peer's certificate is of the authority.
func signed(c tls.ConnectionState, authority *x509.CertPool) error {
	if len(c.PeerCertificates) == 0 {
		return errors.New("sip: the gateway shows no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range c.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: authority, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	return err
}

// alive tells whether another gateway lives.
func (s *Switch) alive(node string) bool {
	if s.deps.Peers == nil {
		return false
	}
	_, alive := s.deps.Peers(node)
	return alive
}

// nodeLine is the listener that other gateways are called from.
func (s *Switch) nodeLine() (*line, error) {
	if s.tls != nil {
		return s.lineOf(atNodes, "tls")
	}
	return s.lineOf(atNodes, "udp")
}

// watchNodes ends the calls that stand with a gateway that has died, so that nobody talks into a dead one,
// until ctx ends. Each gateway is asked itself all the time, since the cluster's word comes by a store that
// may be away; and its silence alone ends no call that the cluster knows to be in good hands.
func (s *Switch) watchNodes(ctx context.Context) error {
	tick := time.NewTicker(nodeBeat)
	defer tick.Stop()
	watched := map[string]*silence{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		legs := s.nodeLegs()
		for node := range watched {
			if len(legs[node]) == 0 {
				delete(watched, node)
			}
		}
		var asked sync.WaitGroup
		for node, all := range legs {
			q := watched[node]
			if q == nil {
				q = &silence{addr: all[0].Info().Peer.String(), heard: time.Now()}
				watched[node] = q
			}
			asked.Go(func() { s.lookAfter(ctx, node, q, all) })
		}
		asked.Wait()
	}
}

// silence is how long a gateway has not answered.
type silence struct {
	addr  string
	heard time.Time
}

// lookAfter asks a gateway whether it lives, and ends its legs when the cluster misses it and it has not
// answered for nodeLost.
func (s *Switch) lookAfter(ctx context.Context, node string, q *silence, legs []*leg) {
	at, _ := s.deps.Peers(node)
	if at != "" {
		q.addr = at
	}
	if s.answers(ctx, q.addr) {
		q.heard = time.Now()
		return
	}
	if ctx.Err() != nil || s.alive(node) || time.Since(q.heard) < nodeLost {
		return
	}
	s.log.Warn("a gateway has died; its calls are ended here", "node", node, "calls", len(legs))
	for _, l := range legs {
		s.metrics.nodes.lost.Inc()
		s.work.Go(func() { l.end(call.Ended{Cause: call.CauseTempUnavailable, Reason: call.EndNodeLost}) })
	}
}

// nodeURI is a user at host:port of a gateway.
func nodeURI(user, addr string) (sip.Uri, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return sip.Uri{}, err
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return sip.Uri{Scheme: "sip", User: user, Host: host, Port: int(n)}, err
}

// answers tells whether a gateway answers at an address, whatever it says.
func (s *Switch) answers(ctx context.Context, addr string) bool {
	l, err := s.nodeLine()
	if err != nil {
		return false
	}
	to, err := nodeURI("", addr)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, nodePing)
	defer cancel()
	_, err = l.options(ctx, to, addr)
	return err == nil
}

// nodeLegs are the legs whose far side is another gateway, by its name.
func (s *Switch) nodeLegs() map[string][]*leg {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]*leg{}
	for _, l := range s.legs {
		if l.node != "" {
			all[l.node] = append(all[l.node], l)
		}
	}
	return all
}
