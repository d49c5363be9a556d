// Package config composes the sections of every package into the one file of the gateway.
//
// Each package owns its section, defaults and checks; this package reads YAML strictly, puts --set
// on top, and turns what a check says of a path into a place in the file.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/hotline12345/gateway/abuse"
	"github.com/hotline12345/gateway/cmd/hotline/internal/console"
	"github.com/hotline12345/gateway/cmd/hotline/internal/nodes"
	"github.com/hotline12345/gateway/cmd/hotline/internal/ops"
	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/audit"
	"github.com/hotline12345/gateway/internal/intake"
	"github.com/hotline12345/gateway/internal/journal"
	"github.com/hotline12345/gateway/internal/recording"
	"github.com/hotline12345/gateway/internal/session"
	"github.com/hotline12345/gateway/internal/staff"
	"github.com/hotline12345/gateway/internal/store"
	"github.com/hotline12345/gateway/ivr"
	"github.com/hotline12345/gateway/ivr/emergency"
	"github.com/hotline12345/gateway/ivr/emergency/judge"
	"github.com/hotline12345/gateway/ivr/prompt"
	"github.com/hotline12345/gateway/ivr/speech"
	"github.com/hotline12345/gateway/queue"
	"github.com/hotline12345/gateway/sip"
	"github.com/hotline12345/gateway/sip/trunk"
)

// Config is the whole configuration. Its zero file is the embedded default.
type Config struct {
	// Data is the directory of everything that is kept. Paths below it follow it unless they are set.
	Data string `yaml:"data"`
	// DrainFor is how long calls may finish after SIGTERM, 0 to 24h.
	DrainFor time.Duration `yaml:"drain_for"`
	// LogLevel is debug, info, warn or error.
	LogLevel string `yaml:"log_level"`

	// Backend is how calls come: sip, by our own SIP, or asterisk, by an Asterisk that the gateway drives.
	Backend Backend `yaml:"backend"`

	Session   session.Config   `yaml:"session"`
	Emergency Emergency        `yaml:"emergency"`
	Speech    speech.Config    `yaml:"speech"`
	SIP       sip.Config       `yaml:"sip"`
	Asterisk  asterisk.Config  `yaml:"asterisk"`
	IVR       ivr.Config       `yaml:"ivr"`
	Prompts   prompt.Config    `yaml:"prompts"`
	Queue     queue.Config     `yaml:"queue"`
	Abuse     abuse.Config     `yaml:"abuse"`
	Store     store.Config     `yaml:"store"`
	Nodes     nodes.Config     `yaml:"nodes"`
	Recording recording.Config `yaml:"recording"`
	Intake    intake.Config    `yaml:"intake"`
	Journal   journal.Config   `yaml:"journal"`
	Audit     audit.Config     `yaml:"audit"`
	Staff     staff.Config     `yaml:"staff"`
	HTTP      ops.Config       `yaml:"http"`
	Console   console.Config   `yaml:"console"`
}

// Emergency is the section emergency: the ways to the services, and what is danger.
type Emergency struct {
	session.EmergencyConfig `yaml:",inline"`
	// WordsFile has the operator's own words of danger, a line each; see `hotline emergency match --rules`.
	WordsFile string       `yaml:"words_file"`
	Judge     judge.Config `yaml:"judge"`
}

// Words reads the operator's own words; none without a file.
func (e Emergency) Words() ([]emergency.Word, error) {
	if e.WordsFile == "" {
		return nil, nil
	}
	f, err := os.Open(e.WordsFile)
	if err != nil {
		return nil, fmt.Errorf("emergency.words_file: %w; write the path of a file of words, or leave it out", err)
	}
	defer f.Close() // it was only read
	words, err := emergency.ReadWords(f, e.WordsFile)
	if err != nil {
		return nil, fmt.Errorf("emergency.words_file: %w", err)
	}
	return words, nil
}

// embeddedTrunk is the trunk of the embedded default, by which callers are called back while no other trunks
// are named.
const embeddedTrunk = "loopback"

// Backend is a way of calls.
type Backend string

// The backends.
const (
	SIP      Backend = "sip"
	Asterisk Backend = "asterisk"
)

// Defaults is the embedded default with everything it keeps in a directory.
func Defaults(data string) Config {
	c := Config{
		Data: data, DrainFor: 2 * time.Minute, LogLevel: "info", Backend: SIP, Asterisk: asterisk.Defaults(),
		Session: session.Defaults(), Speech: speech.Defaults(), SIP: sip.Defaults(), IVR: ivr.Defaults(), Prompts: prompt.Defaults(),
		Queue: queue.Defaults(), Abuse: abuse.Defaults(), Store: store.Defaults(), Nodes: nodes.Defaults(), Recording: recording.Defaults(),
		Intake: intake.Defaults(), Journal: journal.Defaults(), Audit: audit.Defaults(), Staff: staff.Defaults(),
		HTTP: ops.Defaults(), Console: console.Defaults(),
	}
	c.Emergency = Emergency{EmergencyConfig: c.Session.Emergency, Judge: judge.Defaults()}
	c.Session.CallBack.Trunk = embeddedTrunk
	c.SIP.SpoolDir = filepath.Join(data, "sip")
	if dir, err := filepath.Abs(filepath.Join(data, "sounds")); err == nil { // Asterisk has another working directory
		c.Asterisk.SoundsDir = dir
	}
	c.Recording.Dir = filepath.Join(data, "recordings")
	c.Journal.Path = filepath.Join(data, "journal.db")
	c.Intake.Dir = filepath.Join(data, "intake")
	for i, t := range c.Intake.Targets {
		if t.Kind == intake.Directory {
			c.Intake.Targets[i].Dir = filepath.Join(data, "handover")
		}
	}
	return c
}

// AgencyKey is where the key of the embedded default lies: recordings are sealed to it while
// recording.recipients is empty.
func (c Config) AgencyKey() string { return filepath.Join(c.Data, "keys", "agency.key") }

// Socket is where the command line talks to the running process.
func (c Config) Socket() string { return filepath.Join(c.Data, "hotline.sock") }

// AuditDir is where the audit chains lie.
func (c Config) AuditDir() string { return filepath.Join(c.Data, "audit") }

// Load reads a configuration: the defaults, the file (none when file is ""), and each "path=value"
// of sets on top. The error tells every fault with its place and its mend.
func Load(file string, sets []string) (Config, error) {
	src, err := read(file)
	if err != nil {
		return Config{}, err
	}
	overlays, err := parseSets(sets)
	if err != nil {
		return Config{}, err
	}
	c := Defaults(dataOf(src, overlays))
	if err := decode(src, &c, name(file)); err != nil {
		return Config{}, err
	}
	for _, o := range overlays {
		if err := decode([]byte(o.yaml), &c, "--set "+o.text); err != nil {
			return Config{}, err
		}
	}
	c.settleCallBack()
	if err := c.Validate(); err != nil {
		return Config{}, place(err, src, name(file), overlays)
	}
	return c, nil
}

// settleCallBack takes the default trunk of call backs away from a file that has other trunks, or a trunk of that
// name that shows no number: calling people by a carrier is to be written down.
func (c *Config) settleCallBack() {
	if c.Session.CallBack.Trunk == embeddedTrunk && !slices.ContainsFunc(c.SIP.Trunks, func(t trunk.Config) bool {
		return t.Name == embeddedTrunk && t.Address != "" && t.Caller != ""
	}) {
		c.Session.CallBack.Trunk = ""
	}
}

func name(file string) string {
	if file == "" {
		return "the embedded default"
	}
	return file
}

func read(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	src, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no such file; write one with: hotline config example > %s", file, file)
	}
	return src, err
}

// dataOf finds the data directory first, since other defaults follow it.
func dataOf(src []byte, overlays []overlay) string {
	data := "data"
	for _, b := range append([][]byte{src}, yamls(overlays)...) {
		var only struct {
			Data string `yaml:"data"`
		}
		if err := yaml.Unmarshal(b, &only); err == nil && only.Data != "" { // faults are told by the strict decode
			data = only.Data
		}
	}
	return data
}

func decode(src []byte, c *Config, from string) error {
	if len(strings.TrimSpace(string(src))) == 0 {
		return nil
	}
	if err := yaml.UnmarshalWithOptions(src, c, yaml.Strict()); err != nil {
		return misread(err, src, from)
	}
	return nil
}

// Validate returns every fault of every section, each beginning with its path.
func (c Config) Validate() error {
	c.Session.Emergency = c.Emergency.EmergencyConfig
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("data: empty; write a directory, e.g. /var/lib/hotline"))
	}
	if c.DrainFor < 0 || c.DrainFor > 24*time.Hour {
		errs = append(errs, fmt.Errorf("drain_for: %v is out of range; write a time from 0s to 24h", c.DrainFor))
	}
	if _, ok := levels[c.LogLevel]; !ok {
		errs = append(errs, fmt.Errorf("log_level: %q is no level; write debug, info, warn or error", c.LogLevel))
	}
	if len(c.Recording.Recipients) == 0 { // the agency key of the data directory stands in; see AgencyKey
		c.Recording.Recipients = []string{"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}
	}
	switch c.Backend {
	case SIP:
	case Asterisk:
		errs = append(errs, under("asterisk", c.Asterisk.Validate())...)
	default:
		errs = append(errs, fmt.Errorf("backend: %q is none; write %s or %s", c.Backend, SIP, Asterisk))
	}
	for _, s := range []struct {
		path  string
		check func() error
	}{
		{"session", c.Session.Validate}, {"sip", c.SIP.Validate}, {"ivr", c.IVR.Validate},
		{"prompts", c.Prompts.Validate}, {"queue", c.Queue.Validate}, {"abuse", c.Abuse.Validate},
		{"store", c.Store.Validate}, {"nodes", c.Nodes.Validate}, {"recording", c.Recording.Validate}, {"intake", c.Intake.Validate},
		{"journal", c.Journal.Validate}, {"audit", c.Audit.Validate}, {"staff", c.Staff.Validate},
		{"speech", c.Speech.Validate}, {"http", c.HTTP.Validate}, {"console", c.Console.Validate},
	} {
		errs = append(errs, under(s.path, s.check())...)
	}
	_, err := c.Emergency.Words()
	errs = append(errs, parts(errors.Join(err, c.Emergency.Judge.Validate()))...)
	errs = append(errs, c.crossCheck()...)
	return errors.Join(errs...)
}

// under puts a section's path before each of its faults. The emergency section is its own.
func under(path string, err error) []error {
	var out []error
	for _, e := range parts(err) {
		if strings.HasPrefix(e.Error(), "emergency.") {
			out = append(out, e)
			continue
		}
		out = append(out, fmt.Errorf("%s.%w", path, e))
	}
	return out
}

// parts takes joined errors apart.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, parts(e)...)
		}
		return out
	}
	return []error{err}
}

// clusterCheck holds against one another what makes several gateways one line.
func (c Config) clusterCheck() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !c.Nodes.Clustered() {
		if c.SIP.Nodes.Listen != "" {
			bad("nodes.secret_file: empty while sip.nodes.listen is %s; gateways prove themselves to one another with it: write a file that all have, or leave sip.nodes.listen empty", c.SIP.Nodes.Listen)
		}
		return errs
	}
	if c.Store.Embedded() {
		bad("nodes.secret_file: the gateways of a cluster meet in one Redis, and this one has its own inside; write store.addrs, or leave secret_file empty")
	}
	switch at, err := netip.ParseAddrPort(c.SIP.Nodes.Listen); {
	case c.SIP.Nodes.Listen == "":
		bad("sip.nodes.listen: empty; the other gateways reach the phones of this one there: write host:port, e.g. 10.0.0.1:5064")
	case err == nil && at.Addr().IsUnspecified():
		bad("sip.nodes.listen: the other gateways are told %s, which leads nowhere; write the address by which they reach this one", at)
	}
	return errs
}

// trunks are the carriers of the backend: whether a number can be called by each, and the number it then shows.
func (c Config) trunks() (out map[string]bool, callers map[string]string) {
	out, callers = map[string]bool{}, map[string]string{}
	if c.Backend == Asterisk {
		for _, t := range c.Asterisk.Trunks {
			out[t.Name], callers[t.Name] = true, t.Caller
		}
		return out, callers
	}
	for _, t := range c.SIP.Trunks {
		out[t.Name], callers[t.Name] = t.Address != "", t.Caller
	}
	return out, callers
}

// crossCheck holds the sections against one another.
func (c Config) crossCheck() (errs []error) {
	trunks, callers := c.trunks()
	known := func(path, name string) {
		switch out, ok := trunks[name]; {
		case !ok:
			errs = append(errs, fmt.Errorf("%s: there is no trunk %q; write the name of one under %s.trunks", path, name, c.Backend))
		case !out:
			errs = append(errs, fmt.Errorf("%s: trunk %q has no address, so nothing can be sent there; give it one", path, name))
		}
	}
	if c.Emergency.Live {
		for svc, routes := range c.Emergency.Routes {
			for i, r := range routes {
				known(fmt.Sprintf("emergency.routes.%s[%d].trunk", svc, i), r.Trunk)
			}
		}
	} else if _, ok := trunks[c.Emergency.DrillTrunk]; !ok {
		known("emergency.drill_trunk", c.Emergency.DrillTrunk)
	}
	if t := c.Session.CallBack.Trunk; t != "" {
		known("session.call_back.trunk", t)
		if trunks[t] && callers[t] == "" {
			errs = append(errs, fmt.Errorf("session.call_back.trunk: trunk %q has no caller, so who is called back would see no number; write the hotline's own there", t))
		}
	}
	errs = append(errs, c.clusterCheck()...)
	queues := map[string]bool{}
	for _, q := range c.Queue.Queues {
		queues[q.Name] = true
	}
	if !queues[c.Session.DefaultQueue] {
		errs = append(errs, fmt.Errorf("session.default_queue: there is no queue %q; write the name of one under queue.queues", c.Session.DefaultQueue))
	}
	return errs
}
