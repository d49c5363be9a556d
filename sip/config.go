package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/hotline12345/gateway/sip/dialog"
	"github.com/hotline12345/gateway/sip/media"
	"github.com/hotline12345/gateway/sip/registrar"
	"github.com/hotline12345/gateway/sip/trunk"
)

// Config is the section sip.
type Config struct {
	// AreaCode is the city's area code, with or without its 0: local numbers are read in it.
	AreaCode string `yaml:"area_code" json:"area_code"`
	// OwnNumbers are the hotline's own numbers, in any form; a caller who claims one on a carrier
	// trunk is refused (Art. 28).
	OwnNumbers []string `yaml:"own_numbers" json:"own_numbers"`
	// MaxCalls is the calls of the whole gateway, 5 to 100000. A tenth of it, and four at least, is
	// kept for emergencies.
	MaxCalls int `yaml:"max_calls" json:"max_calls"`
	// SpoolDir keeps the dialogs and the phones of a killed process, so that the next one can end the
	// former and ring the latter; "" keeps none.
	SpoolDir string `yaml:"spool_dir" json:"spool_dir"`
	// Carriers is where trunks send to, Phones where agents' phones register.
	Carriers Place `yaml:"carriers" json:"carriers"`
	Phones   Place `yaml:"phones" json:"phones"`
	// Nodes is where the other gateways of a cluster send calls for the phones of this one.
	Nodes NodesPlace `yaml:"nodes" json:"nodes"`
	// PhoneSources are the networks (CIDR) that phones may come from.
	PhoneSources []string         `yaml:"phone_sources" json:"phone_sources"`
	Trunks       []trunk.Config   `yaml:"trunks" json:"trunks"`
	Registrar    registrar.Config `yaml:"registrar" json:"registrar"`
	Media        media.Config     `yaml:"media" json:"media"`
}

// Place is where a kind of peer is served, on UDP and TCP.
type Place struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string `yaml:"listen" json:"listen"`
	// Rate bounds each source.
	Rate trunk.RateConfig `yaml:"rate" json:"rate"`
	// Dialog bounds the place's calls and connections.
	Dialog dialog.Config `yaml:"dialog" json:"dialog"`
}

// NodesPlace is where the other gateways of a cluster are served: on UDP and TCP, or on TLS alone.
type NodesPlace struct {
	// Listen is host:port, port 0 takes a free one; "" takes no calls of other gateways, and makes none.
	Listen string `yaml:"listen" json:"listen"`
	// TLS is set on all gateways of a cluster, or on none.
	TLS NodesTLS `yaml:"tls" json:"tls"`
	// Sources are the networks (CIDR) that the other gateways' signalling and media may come from.
	Sources []string `yaml:"sources" json:"sources"`
	// Rate bounds each source.
	Rate trunk.RateConfig `yaml:"rate" json:"rate"`
	// Dialog bounds the place's calls and connections.
	Dialog dialog.Config `yaml:"dialog" json:"dialog"`
}

// NodesTLS is the certificate that a gateway shows to the others, and the authority that theirs are of.
// All three are PEM files, and all are set or none.
type NodesTLS struct {
	CertFile string `yaml:"cert_file" json:"cert_file"`
	KeyFile  string `yaml:"key_file" json:"key_file"`
	CAFile   string `yaml:"ca_file" json:"ca_file"`
}

// on tells whether TLS is used.
func (t NodesTLS) on() bool { return t.CertFile != "" }

// Defaults is a gateway on loopback, with the trunk loopback.
func Defaults() Config {
	// Phones sit behind NAT, and are reached where their REGISTER came from.
	phones := dialog.Defaults()
	phones.Symmetric = true
	return Config{
		AreaCode:   "571",
		OwnNumbers: []string{"12345"},
		MaxCalls:   1000,
		Carriers: Place{Listen: "127.0.0.1:5060", Dialog: dialog.Defaults(),
			Rate: trunk.RateConfig{Messages: 5000, Burst: 10000}},
		Phones: Place{Listen: "127.0.0.1:5062", Dialog: phones,
			Rate: trunk.RateConfig{Messages: 500, Burst: 1000}},
		Nodes: NodesPlace{Sources: []string{"127.0.0.0/8"}, Dialog: dialog.Defaults(),
			Rate: trunk.RateConfig{Messages: 5000, Burst: 10000}},
		PhoneSources: []string{"127.0.0.0/8"},
		Trunks:       []trunk.Config{trunk.Loopback()},
		Registrar:    registrar.Defaults(),
		Media:        media.Defaults(),
	}
}

// Validate checks every setting and joins what it finds.
func (c Config) Validate() error {
	var errs []error
	under := func(path string, err error) {
		for _, e := range list(err) {
			errs = append(errs, fmt.Errorf("%s%w", path, e))
		}
	}
	if _, err := trunk.NewPlan(c.AreaCode, c.OwnNumbers); err != nil {
		errs = append(errs, err)
	}
	if c.MaxCalls < trunk.MinCalls || c.MaxCalls > 100000 {
		errs = append(errs, fmt.Errorf("max_calls: %d is out of range; write %d to 100000", c.MaxCalls, trunk.MinCalls))
	}
	// What the layer of dialogs refuses is refused before the caps are looked at: the kept emergency
	// places would never be reached.
	if c.Carriers.Dialog.MaxCalls < c.MaxCalls {
		errs = append(errs, fmt.Errorf("carriers.dialog.max_calls: %d is less than max_calls, whose kept emergency places would then be out of reach; write %d or more",
			c.Carriers.Dialog.MaxCalls, c.MaxCalls))
	}
	under("carriers.", c.Carriers.validate())
	under("phones.", c.Phones.validate())
	if c.Carriers.Listen == c.Phones.Listen && !strings.HasSuffix(c.Phones.Listen, ":0") {
		errs = append(errs, fmt.Errorf("phones.listen: %s is carriers.listen too; write another port", c.Phones.Listen))
	}
	under("nodes.", c.Nodes.validate())
	if len(c.PhoneSources) == 0 {
		errs = append(errs, errors.New("phone_sources: is empty; write the networks of the agents, e.g. [10.0.0.0/8]"))
	}
	under("phone_sources", networks(c.PhoneSources))
	under("", trunk.Validate(c.Trunks))
	under("registrar.", c.Registrar.Validate())
	under("media.", c.Media.Validate())
	return errors.Join(errs...)
}

// networks checks that all are CIDRs.
func networks(all []string) error {
	var errs []error
	for i, s := range all {
		if _, err := netip.ParsePrefix(s); err != nil {
			errs = append(errs, fmt.Errorf("[%d]: %q is not a CIDR; write it as 10.0.0.0/8", i, s))
		}
	}
	return errors.Join(errs...)
}

func (n NodesPlace) validate() error {
	if n.Listen == "" {
		return nil
	}
	errs := list(Place{Listen: n.Listen, Rate: n.Rate, Dialog: n.Dialog}.validate())
	for _, e := range list(networks(n.Sources)) {
		errs = append(errs, fmt.Errorf("sources%w", e))
	}
	if len(n.Sources) == 0 {
		errs = append(errs, errors.New("sources: is empty; write the network of the gateways, e.g. [10.0.0.0/24]"))
	}
	set := 0
	for _, file := range []string{n.TLS.CertFile, n.TLS.KeyFile, n.TLS.CAFile} {
		if file != "" {
			set++
		}
	}
	if set != 0 && set != 3 {
		errs = append(errs, errors.New("tls: is set by half; write cert_file, key_file and ca_file, or none of them"))
	}
	return errors.Join(errs...)
}

func (p Place) validate() error {
	var errs []error
	if _, err := netip.ParseAddrPort(p.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen: %q is no address and port; write it as 127.0.0.1:5060", p.Listen))
	}
	for _, e := range list(p.Rate.Validate()) {
		errs = append(errs, fmt.Errorf("rate.%w", e))
	}
	for _, e := range list(p.Dialog.Validate()) {
		errs = append(errs, fmt.Errorf("dialog.%w", e))
	}
	return errors.Join(errs...)
}

// list is the errors that errors.Join joined.
func list(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
