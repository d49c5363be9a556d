package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Inputs is what the doctor looks at. A nil function, an empty list or a zero is left out, and the
// finding says so.
type Inputs struct {
	Redis func(context.Context) (time.Time, error) // answers with its clock
	// RedisServer is what Redis says of itself.
	RedisServer func(context.Context) (RedisServer, error)
	Cluster     *ClusterInputs           // nil for a gateway that stands alone
	Asterisk    *AsteriskInputs          // nil with the backend sip
	Ports       []Port                   // that the gateway will take
	Prompts     func() ([]string, error) // what is missing, as language/identity
	DataDir     string                   // where recordings and the journal lie
	MinFree     uint64                   // bytes that DataDir must have free
	Calls       int                      // the most calls at once
	Conns       int                      // the most TCP connections at once, of all listeners
	Buffer      int                      // bytes of receive buffer that a socket is to have
	RTPPairs    int                      // pairs of RTP ports
	Emergency   *EmergencyPlan
	Recipients  func() error                // nil when the keys that recordings are sealed to can be read
	Recogniser  func(context.Context) error // nil when the recogniser answers; the field is nil where none is configured
}

// Port is an address that must be free.
type Port struct {
	Network string // "udp" or "tcp"
	Address string // host:port
	For     string // "sip", "console"
}

// EmergencyPlan is the routes to the emergency services.
type EmergencyPlan struct {
	Live      bool   // emergency.live
	Agreement string // the reference of the agreement with the services
	Services  []string
	Routes    []EmergencyRoute
}

// EmergencyRoute is a way to a service.
type EmergencyRoute struct {
	Service string
	Address string // host or host:port
}

// Level is how a finding is to be taken.
type Level string

// The levels. Bad alone makes the doctor fail.
const (
	Well    Level = "ok"
	Warn    Level = "warn"
	Bad     Level = "bad"
	Skipped Level = "skipped"
)

// Finding is what the doctor found of one thing.
type Finding struct {
	Code   string `json:"code"`
	Level  Level  `json:"level"`
	Title  string `json:"title"`
	Detail string `json:"detail,omitempty"`
	Mend   string `json:"mend,omitempty"`
}

// examination is a test of the doctor. It gives the level, what was found, and what to do if it is not well.
type examination struct {
	code, title string
	look        func(context.Context, Inputs) (Level, string, string)
}

func examinations() []examination {
	return []examination{
		{"redis", "Redis answers", lookRedis},
		{"redis_keeping", "Redis keeps what it is given", lookKeeping},
		{"redis_spare", "Another Redis takes over", lookSpare},
		{"clock", "The clock is right", lookClock},
		{"ports", "The ports are free", lookPorts},
		{"prompts", "The prompts are complete", lookPrompts},
		{"disk", "There is room for recordings", lookDisk},
		{"nofile", "Enough files may be open", lookFiles},
		{"buffers", "Sockets may have their receive buffers", lookBuffers},
		{"memory", "The memory is bounded, and enough", lookMemory},
		{"rtp", "There are RTP ports for every call", lookRTP},
		{"io_uring", "Packets are gathered", lookRing},
		{"emergency", "The emergency routes are what they should be", lookEmergency},
		{"recipients", "Recordings can be sealed", lookRecipients},
		{"speech", "The recogniser answers", lookSpeech},
		{"asterisk", "Asterisk lets the gateway in", atAsterisk(lookAsterisk)},
		{"asterisk_way", "The way to Asterisk is safe", lookWay},
		{"asterisk_user", "The gateway's user may do what it must", atAsterisk(lookRights)},
		{"asterisk_modules", "Asterisk has its modules", atAsterisk(lookModules)},
		{"asterisk_app", "The dialplan's calls come to this gateway", atAsterisk(lookApplication)},
		{"asterisk_sounds", "Asterisk plays the prompts", atAsterisk(lookSounds)},
		{"asterisk_trunks", "Asterisk knows where the trunks lead", atAsterisk(lookTrunks)},
		{"secret", "The cluster's secret is kept", lookSecret},
		{"peers", "The other gateways can be reached", lookPeers},
		{"alike", "The gateways are set up alike", lookAlike},
	}
}

// doctorTimeout bounds one examination.
const doctorTimeout = 15 * time.Second

// Examine looks at everything, one after the other, and always tells of everything.
func Examine(ctx context.Context, in Inputs) []Finding {
	var out []Finding
	for _, e := range examinations() {
		one, cancel := context.WithTimeout(ctx, doctorTimeout)
		level, detail, mend := e.look(one, in)
		cancel()
		if level == Well || level == Skipped {
			mend = ""
		}
		out = append(out, Finding{e.code, level, e.title, detail, mend})
	}
	return out
}

// Healthy says whether nothing is bad.
func Healthy(found []Finding) bool {
	return !slices.ContainsFunc(found, func(f Finding) bool { return f.Level == Bad })
}

const notGiven = "not configured"

func lookRedis(ctx context.Context, in Inputs) (Level, string, string) {
	if in.Redis == nil {
		return Skipped, "the embedded store is used", ""
	}
	start := time.Now()
	if _, err := in.Redis(ctx); err != nil {
		return Bad, err.Error(), "Start Redis, or put its address under store.addrs. Calls are taken without it, but each node queues alone."
	}
	return Well, "in " + time.Since(start).Round(time.Microsecond).String(), ""
}

// The clock's bounds: a certificate, a token or a deadline is wrong with less than a day of error, and
// nodes with 2 s between them put timelines in the wrong order.
const maxSkew = 2 * time.Second

var built = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func lookClock(ctx context.Context, in Inputs) (Level, string, string) {
	now := time.Now()
	if now.Before(built) {
		return Bad, "it is " + now.Format(time.RFC3339), "Set the clock: timedatectl set-ntp true"
	}
	if in.Redis == nil {
		return Well, now.Format(time.RFC3339) + ", not compared", ""
	}
	theirs, err := in.Redis(ctx)
	if err != nil {
		return Warn, "Redis did not answer, so the clock could not be compared", "Look at the finding redis."
	}
	if skew := theirs.Sub(now).Abs(); skew > maxSkew {
		return Bad, fmt.Sprintf("%s apart from Redis", skew.Round(time.Millisecond)), "Let both hosts follow one time server: timedatectl set-ntp true"
	}
	return Well, now.Format(time.RFC3339), ""
}

func lookPorts(ctx context.Context, in Inputs) (Level, string, string) {
	if len(in.Ports) == 0 {
		return Skipped, notGiven, ""
	}
	var taken []string
	for _, p := range in.Ports {
		if err := p.try(ctx); err != nil {
			taken = append(taken, fmt.Sprintf("%s %s/%s: %v", p.For, p.Address, p.Network, err))
		}
	}
	if len(taken) > 0 {
		return Bad, strings.Join(taken, "; "), "Stop what holds the port (ss -lntup shows it), or change the address; a running gateway holds its own."
	}
	return Well, fmt.Sprintf("%d of %d", len(in.Ports), len(in.Ports)), ""
}

// try takes the port and gives it back.
func (p Port) try(ctx context.Context) error {
	var lc net.ListenConfig
	var c io.Closer
	var err error
	if strings.HasPrefix(p.Network, "udp") {
		c, err = lc.ListenPacket(ctx, p.Network, p.Address)
	} else {
		c, err = lc.Listen(ctx, p.Network, p.Address)
	}
	if err != nil {
		if sys, ok := errors.AsType[*net.OpError](err); ok {
			return sys.Err
		}
		return err
	}
	return c.Close()
}

// shown is how many of a long list are told.
const shown = 8

func lookPrompts(_ context.Context, in Inputs) (Level, string, string) {
	if in.Prompts == nil {
		return Skipped, notGiven, ""
	}
	missing, err := in.Prompts()
	if err != nil {
		return Bad, err.Error(), "Look at prompts.dir."
	}
	if n := len(missing); n > 0 {
		return Warn, fmt.Sprintf("%d missing: %s", n, strings.Join(missing[:min(n, shown)], ", ")),
			"Put a recording of each under prompts.dir; until then the other language is played."
	}
	return Well, "", ""
}

func lookDisk(_ context.Context, in Inputs) (Level, string, string) {
	if in.DataDir == "" {
		return Skipped, notGiven, ""
	}
	var fs syscall.Statfs_t
	dir, err := in.DataDir, error(nil)
	for { // what is not there yet is made at the first start, so its parent's disk counts
		err = syscall.Statfs(dir, &fs)
		if !errors.Is(err, syscall.ENOENT) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return Bad, fmt.Sprintf("%s: %v", in.DataDir, err), "Make the directory, owned by the gateway's user."
	}
	free := fs.Bavail * uint64(fs.Bsize)
	detail := fmt.Sprintf("%s has %d MiB free", in.DataDir, free>>20)
	if free < in.MinFree {
		return Bad, fmt.Sprintf("%s, %d MiB are asked for", detail, in.MinFree>>20), "Free space or move the data: below the mark calls go on unrecorded."
	}
	return Well, detail, ""
}

// What is open: a call has two legs of two sockets and a recording; the rest is the process's own.
const (
	filesACall = 6
	filesOther = 512
)

func lookFiles(_ context.Context, in Inputs) (Level, string, string) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return Warn, err.Error(), "Set LimitNOFILE in the unit."
	}
	need := uint64(filesOther + filesACall*in.Calls + in.Conns)
	detail := fmt.Sprintf("%d may be open, %d calls and %d connections need %d", lim.Cur, in.Calls, in.Conns, need)
	if lim.Cur < need {
		return Bad, detail, fmt.Sprintf("Set LimitNOFILE=%d in the unit, or ulimit -n.", need*2)
	}
	return Well, detail, ""
}

func lookEmergency(_ context.Context, in Inputs) (Level, string, string) {
	if in.Emergency == nil {
		return Skipped, notGiven, ""
	}
	if err := in.Emergency.Check(); err != nil {
		return Bad, err.Error(), "Point the routes at loopback for drills, or set emergency.live: true with emergency.agreement."
	}
	var without []string
	for _, s := range in.Emergency.Services {
		if !slices.ContainsFunc(in.Emergency.Routes, func(r EmergencyRoute) bool { return r.Service == s }) {
			without = append(without, s)
		}
	}
	switch {
	case len(without) > 0 && !in.Emergency.Live:
		return Warn, "drill: callers in danger are told to dial and get an agent, for there is no route to " + strings.Join(without, ", "),
			"Give the trunk of emergency.drill_trunk an address to drill, or add routes."
	case len(without) > 0:
		return Bad, "no route to " + strings.Join(without, ", "), "Add a route for each under emergency.routes."
	case !in.Emergency.Live:
		return Warn, "drill: no route leaves this host", "Set emergency.live: true with emergency.agreement when the services have agreed."
	}
	return Well, fmt.Sprintf("%d routes, agreement %s", len(in.Emergency.Routes), in.Emergency.Agreement), ""
}

// Check refuses a plan that could ring a real service without the agreement for it. A name that is not
// an address may lead anywhere, so it counts as leading off this host.
func (p EmergencyPlan) Check() error {
	if p.Live && p.Agreement != "" {
		return nil
	}
	for _, r := range p.Routes {
		host := r.Address
		if h, _, err := net.SplitHostPort(r.Address); err == nil {
			host = h
		}
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil || !addr.Unmap().IsLoopback() {
			return fmt.Errorf("the route of %s to %q leaves this host without a live agreement", r.Service, r.Address)
		}
	}
	return nil
}

func lookRecipients(_ context.Context, in Inputs) (Level, string, string) {
	if in.Recipients == nil {
		return Skipped, notGiven, ""
	}
	if err := in.Recipients(); err != nil {
		return Bad, err.Error(), "Put the agency's age public keys under recording.recipients; without them calls go on unrecorded."
	}
	return Well, "", ""
}

func lookSpeech(ctx context.Context, in Inputs) (Level, string, string) {
	if in.Recogniser == nil {
		return Skipped, "none is configured: callers in danger have the keys", ""
	}
	if err := in.Recogniser(ctx); err != nil {
		return Warn, err.Error(), "Start the server at speech.vosk.url, or leave it out; until then callers in danger have the keys and the agents."
	}
	return Well, "", ""
}

// WriteTable prints findings for people.
func WriteTable(w io.Writer, found []Finding) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range found {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", f.Level, f.Code, f.Title, f.Detail)
		if f.Mend != "" {
			fmt.Fprintf(t, "\t\t→ %s\t\n", f.Mend)
		}
	}
	return t.Flush()
}

// WriteJSON prints findings for programs.
func WriteJSON(w io.Writer, found []Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(found)
}
