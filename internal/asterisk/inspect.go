package asterisk

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/pion/rtp"

	"github.com/hotline12345/gateway/internal/call"
)

// Inspector asks an Asterisk what somebody wants to know who connects a gateway to it. It changes nothing there but
// for the moment of [Inspector.Hear].
type Inspector struct {
	cfg Config
	app string
	api *api
}

// Inspect looks at the Asterisk of a gateway's configuration. It connects to nothing yet.
func Inspect(cfg Config, node string) (*Inspector, error) {
	api, err := newAPI(cfg, newMetrics(nil))
	if err != nil {
		return nil, err
	}
	api.patience = 0 // who looks wants to hear at once that nobody answers
	return &Inspector{cfg: cfg, app: cmp.Or(cfg.Application, "hotline-"+node), api: api}, nil
}

// Close ends the connections.
func (i *Inspector) Close() { i.api.http.CloseIdleConnections() }

// Version is Asterisk's, such as 22.10.1.
func (i *Inspector) Version(ctx context.Context) (string, error) {
	var info struct{ System struct{ Version string } }
	err := i.api.get(ctx, "/asterisk/info", nil, &info)
	return info.System.Version, err
}

// needed are the modules without which something of the gateway's does not work.
var needed = []string{"app_stasis", "bridge_simple", "bridge_softmix", "chan_pjsip", "chan_rtp", "codec_alaw", "format_pcm",
	"func_callerid", "res_ari_applications", "res_ari_asterisk", "res_ari_bridges", "res_ari_channels", "res_ari_endpoints",
	"res_ari_events", "res_ari_playbacks", "res_pjsip_caller_id", "res_pjsip_dtmf_info", "res_pjsip_header_funcs",
	"res_pjsip_registrar", "res_pjsip_sdp_rtp", "res_rtp_asterisk", "res_rtp_multicast", "res_stasis_answer", "res_stasis_playback",
	"res_stasis_snoop"}

// Missing are the modules that the gateway needs and that do not run.
func (i *Inspector) Missing(ctx context.Context) (missing []string, err error) {
	var all []struct{ Name, Status string }
	if err := i.api.get(ctx, "/asterisk/modules", nil, &all); err != nil {
		return nil, err
	}
	runs := map[string]bool{}
	for _, m := range all {
		runs[strings.TrimSuffix(m.Name, ".so")] = m.Status == "Running"
	}
	return slices.DeleteFunc(slices.Clone(needed), func(name string) bool { return runs[name] }), nil
}

// MayWrite tells whether the user may do more than read: whoever may not is refused before it is looked what for.
func (i *Inspector) MayWrite(ctx context.Context) (bool, error) {
	err := i.api.do(ctx, http.MethodDelete, "/playbacks/hotline-doctor", nil, nil, nil)
	e, ok := errors.AsType[*StatusError](err)
	switch {
	case ok && e.Status == http.StatusForbidden:
		return false, nil
	case gone(err):
		return true, nil
	}
	return err == nil, err
}

// dialplanNames are the variables by which the dialplan of the documentation names the applications that get calls.
var dialplanNames = []string{"GATEWAY", "SECOND"}

// Application is the gateway's, whether a gateway is connected as it, and to which ones the dialplan sends calls:
// none where it is not the documentation's.
func (i *Inspector) Application(ctx context.Context) (name string, connected bool, dialplan []string, err error) {
	for _, variable := range dialplanNames {
		var v struct{ Value string }
		err := i.api.get(ctx, "/asterisk/variable", query{"variable": variable}, &v)
		if err != nil && !gone(err) {
			return i.app, false, nil, err
		}
		if v.Value != "" && !slices.Contains(dialplan, v.Value) {
			dialplan = append(dialplan, v.Value)
		}
	}
	err = i.api.get(ctx, "/applications/"+url.PathEscape(i.app), nil, nil)
	if gone(err) {
		return i.app, false, dialplan, nil
	}
	return i.app, err == nil, dialplan, err
}

// Trunks are the addresses, host or host:port, to which calls by each trunk go, as far as Asterisk's own
// configuration says it: a trunk that registers, or is kept in a database, is left out.
func (i *Inspector) Trunks(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range i.cfg.Trunks {
		aor, err := i.object(ctx, "endpoint", t.Endpoint, "aors")
		if err != nil {
			return nil, err
		}
		contact, err := i.object(ctx, "aor", aor, "contact")
		if err != nil {
			return nil, err
		}
		if at := hostOf(contact); at != "" {
			out[t.Name] = at
		}
	}
	return out, nil
}

// Phone is where an extension's phone registers, and its secret, as pjsip.conf has them.
func (i *Inspector) Phone(ctx context.Context, extension string) (at netip.AddrPort, secret string, err error) {
	var found [2]string
	for n, way := range [2][3]string{{"transport", "transport", "bind"}, {"auth", "auth", "password"}} {
		id, err := i.object(ctx, "endpoint", extension, way[0])
		if err != nil {
			return at, "", err
		}
		if found[n], err = i.object(ctx, way[1], id, way[2]); err != nil {
			return at, "", err
		}
	}
	if at, err = netip.ParseAddrPort(found[0]); err != nil {
		return at, "", fmt.Errorf("asterisk: %s is no endpoint with a transport of its own: %w", extension, err)
	}
	return at, found[1], nil
}

// object is an attribute of an object of pjsip.conf; one that is not there is empty.
func (i *Inspector) object(ctx context.Context, kind, id, name string) (string, error) {
	var attributes []struct{ Attribute, Value string }
	err := i.api.get(ctx, "/asterisk/config/dynamic/res_pjsip/"+kind+"/"+url.PathEscape(id), nil, &attributes)
	if gone(err) {
		return "", nil
	}
	for _, a := range attributes {
		if a.Attribute == name {
			return a.Value, err
		}
	}
	return "", err
}

// hostOf is the host, with its port, of a SIP URI.
func hostOf(uri string) string {
	_, rest, ok := strings.Cut(uri, ":")
	if !ok {
		return ""
	}
	if _, host, named := strings.Cut(rest, "@"); named {
		rest = host
	}
	return rest[:strings.IndexAny(rest+";", ";>?")]
}

// The errors of a prompt that did not arrive.
var (
	ErrUnread  = errors.New("asterisk: the prompt was not played: Asterisk does not read it")
	ErrUnheard = errors.New("asterisk: the prompt was played, but its sound did not arrive")
)

// Hear has Asterisk play a prompt from the directory of the prompts, to here: what is wanted of it for every call,
// there and back.
func (i *Inspector) Hear(ctx context.Context, clip *call.Clip) error {
	cfg := i.cfg
	cfg.Application = "hotline-doctor-" + ulid.Make().String()
	s, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer s.api.http.CloseIdleConnections()
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.connection(run) }()
	select {
	case <-s.first:
	case err := <-ended:
		stop()
		return err
	}
	defer func() { stop(); <-ended }()
	return s.hear(ctx, clip)
}

func (s *Switch) hear(ctx context.Context, clip *call.Clip) error {
	media, err := s.sounds.list([]*call.Clip{clip})
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(s.cfg.MediaAddr)})
	if err != nil {
		return fmt.Errorf("asterisk: media_addr: %w", err)
	}
	defer func() { _ = conn.Close() }()
	side, err := s.externalMedia(ctx, conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return err
	}
	defer s.drop(context.WithoutCancel(ctx), "/channels/"+side)
	over := make(chan struct{})
	s.mu.Lock()
	s.plays[side] = over
	s.mu.Unlock()
	if err := s.api.post(ctx, "/channels/"+side+"/play/"+side, nil, map[string]any{"media": media}); err != nil {
		return err
	}
	came := make(chan bool, 1)
	go func() { came <- hears(conn, clip) }()
	select {
	case <-came:
		return nil
	case <-over:
	case <-ctx.Done():
	}
	if err := conn.SetReadDeadline(time.Now().Add(onItsWay)); err != nil {
		return fmt.Errorf("asterisk: media_addr: %w", err)
	}
	switch {
	case <-came:
		return nil
	case s.failed.Load() == side:
		return ErrUnread
	}
	return errors.Join(ErrUnheard, context.Cause(ctx))
}

// onItsWay is how long after the end of a playback its last sound may come.
const onItsWay = 500 * time.Millisecond

// hears reads sound until a piece of the clip came, or conn's deadline is past.
func hears(conn *net.UDPConn, clip *call.Clip) bool {
	const piece = call.Rate / 20
	var heard []byte
	buf := make([]byte, 2048)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return false
		}
		var h rtp.Header
		used, err := h.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		heard = append(heard[max(0, len(heard)-2*piece):], buf[used:n]...)
		for at := 0; at+piece <= len(clip.PCMA); at += piece {
			part := clip.PCMA[at : at+piece]
			if bytes.Count(part, part[:1]) < piece/2 && bytes.Contains(heard, part) { // a pause is in any sound
				return true
			}
		}
	}
}
