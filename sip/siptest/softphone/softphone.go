// Package softphone is a telephone without a person: it registers, calls, answers, speaks tones, hears,
// presses keys and holds, over real SIP and RTP. The demo and the tests play carriers, callers and agents
// with it.
//
// One [Phone] is one UDP socket. It may call as any number, so a carrier is a phone as well.
package softphone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/sdp"
)

// Config says where a phone is and how it proves who it is.
type Config struct {
	Listen string         // its own host:port; port 0 takes a free one
	Peer   netip.AddrPort // the gateway
	User   string         // its name at the gateway; a carrier needs none
	Secret string         // by which it answers a challenge; "" answers none
	Codecs []call.Codec   // that it speaks, the best first; nil is PCMA, PCMU
	Log    *slog.Logger
	// OnCall gets each call that comes in, in a goroutine of its own; nil refuses them.
	OnCall func(*Call)
}

// Phone is a telephone. Its methods may be called from any goroutine while Run runs.
type Phone struct {
	cfg    Config
	conn   net.PacketConn
	addr   netip.AddrPort
	layer  *dialog.Layer
	engine *media.Engine
}

// New opens the phone's socket. The engine, which several phones may share, carries its sound.
func New(cfg Config, engine *media.Engine) (*Phone, error) {
	conn, err := net.ListenPacket("udp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("softphone: %w", err)
	}
	p := &Phone{cfg: cfg, conn: conn, engine: engine, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	limits := dialog.Defaults()
	limits.UserAgent = "hotline softphone"
	p.layer, err = dialog.New(limits, dialog.Deps{Log: cfg.Log, OnInvite: p.invited})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return p, nil
}

// Run serves the phone until ctx ends; its calls are then hung up.
func (p *Phone) Run(ctx context.Context) error { return p.layer.ServeUDP(ctx, p.conn) }

// Ready is closed when the phone can call and be called.
func (p *Phone) Ready() <-chan struct{} { return p.layer.Ready() }

// Aim says where the gateway is, when that was not known to New. It is called before the first call.
func (p *Phone) Aim(peer netip.AddrPort) { p.cfg.Peer = peer }

// Addr is the phone's own address.
func (p *Phone) Addr() netip.AddrPort { return p.addr }

func (p *Phone) credentials() *dialog.Credentials {
	if p.cfg.Secret == "" {
		return nil
	}
	return &dialog.Credentials{Username: p.cfg.User, Password: p.cfg.Secret}
}

func (p *Phone) uri(user string, at netip.AddrPort) sip.Uri {
	return sip.Uri{Scheme: "sip", User: user, Host: at.Addr().String(), Port: int(at.Port())}
}

// Register binds the phone at the gateway for a time; 0 takes the binding away (RFC 3261 section 10.2).
func (p *Phone) Register(ctx context.Context, life time.Duration) error {
	req := sip.NewRequest(sip.REGISTER, sip.Uri{Scheme: "sip", Host: p.cfg.Peer.Addr().String(), Port: int(p.cfg.Peer.Port())})
	self := p.uri(p.cfg.User, p.cfg.Peer)
	req.AppendHeader(&sip.FromHeader{Address: self, Params: sip.NewParams()})
	req.AppendHeader(&sip.ToHeader{Address: self, Params: sip.NewParams()})
	req.AppendHeader(&sip.ContactHeader{Address: p.uri(p.cfg.User, p.addr)})
	req.AppendHeader(sip.NewHeader("Expires", strconv.Itoa(int(life.Seconds()))))
	req.SetDestination(p.cfg.Peer.String())
	res, err := p.layer.Request(ctx, req, p.credentials())
	if err != nil {
		return fmt.Errorf("softphone: REGISTER: %w", err)
	}
	if !res.IsSuccess() {
		return fmt.Errorf("softphone: REGISTER of %s: %d %s", p.cfg.User, res.StatusCode, res.Reason)
	}
	return nil
}

// Dial is a call to be placed.
type Dial struct {
	To     string       // the number that is dialled
	From   string       // the number that calls; "" is the phone's user
	Codecs []call.Codec // in place of the phone's
}

// Dial places a call and returns when it was answered. A refusal is a [*call.DialError].
func (p *Phone) Dial(ctx context.Context, d Dial) (*Call, error) {
	if d.From == "" {
		d.From = p.cfg.User
	}
	if d.Codecs == nil {
		d.Codecs = p.cfg.Codecs
	}
	c, err := p.newCall(d.Codecs)
	if err != nil {
		return nil, err
	}
	c.From, c.To = d.From, d.To
	local := p.addr.Addr().String()
	dialled, err := p.layer.Invite(ctx, dialog.Invite{
		RequestURI: p.uri(d.To, p.cfg.Peer), Dest: p.cfg.Peer.String(),
		From: sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: d.From, Host: local}},
		Body: c.sdp.Offer(sdp.SendRecv), Auth: p.credentials(),
		Setup: c.attach,
	})
	if err != nil {
		c.sound.Close()
		return nil, err
	}
	c.live()
	r, err := c.sdp.Accept(dialled.Response().Body())
	if err == nil {
		err = c.sound.Remote(params(r))
	}
	if err != nil {
		return nil, errors.Join(err, c.Hangup())
	}
	return c, nil
}

// invited takes a call that comes in.
func (p *Phone) invited(dc *dialog.Call) {
	refuse := func(status int) {
		if err := dc.Reject(context.Background(), status, ""); err != nil {
			p.cfg.Log.Debug("a refusal was not sent", "err", err)
		}
	}
	if p.cfg.OnCall == nil {
		refuse(480)
		return
	}
	c, err := p.newCall(p.cfg.Codecs)
	if err != nil {
		refuse(503)
		return
	}
	req := dc.Request()
	c.To, c.From = req.Recipient.User, req.From().Address.User
	if h := req.GetHeader("X-Hotline-Call"); h != nil {
		c.Token = h.Value()
	}
	c.attach(dc)
	c.live()
	p.cfg.OnCall(c)
}
