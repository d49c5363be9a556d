package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hotline12345/gateway/sip/siptest"
)

// softphone is baresip, registered as an agent's phone; it answers by itself and says a tone.
type softphone struct {
	proc   *process
	events chan phoneEvent
}

// phoneEvent is what baresip tells of itself, and when.
type phoneEvent struct {
	Type string `json:"type"`
	at   time.Time
}

// given are the ports that tests of this process were given, so that none is given twice.
var given sync.Map

// freePort is a port that nobody listens on, by TCP or UDP, below those that the system gives to whoever asks for
// any: until the test's own program takes it nobody else should.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.N(10000)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		c, err := net.ListenPacket("udp", addr)
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = c.Close()
		if _, twice := given.LoadOrStore(port, true); !twice {
			return port
		}
	}
	t.Fatal("there is no free port")
	return 0
}

// startBaresip starts baresip as extension on the gateway, and returns when it has registered.
func startBaresip(t *testing.T, g *gateway, extension string, hz float64) *softphone {
	t.Helper()
	modules := ""
	for _, dir := range []string{"/usr/lib/baresip/modules", "/usr/lib/x86_64-linux-gnu/baresip/modules"} {
		if _, err := os.Stat(dir); err == nil {
			modules = dir
		}
	}
	dir := t.TempDir()
	writeWAV(t, filepath.Join(dir, "tone.wav"), hz, time.Minute)
	ctrl := freePort(t)
	config := fmt.Sprintf(`poll_method epoll
sip_listen 127.0.0.1:%d
call_local_timeout 120
call_max_calls 4
audio_source aufile,%s/tone.wav
audio_alert none
rtp_timeout 60
module_path %s
module g711.so
module aufile.so
module uuid.so
module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen 127.0.0.1:%d
`, freePort(t), dir, modules, ctrl)
	account := fmt.Sprintf("<sip:%s@%s>;auth_user=%s;auth_pass=%s;answermode=auto;regint=60;audio_codecs=PCMA/8000/1\n",
		extension, g.phones, extension, g.people[extension].secret)
	for name, text := range map[string]string{"config": config, "accounts": account, "contacts": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := newLog(t, "baresip.log")
	cmd := exec.Command("baresip", "-f", dir, "-4")
	cmd.Stdout, cmd.Stderr = log, log
	b := &softphone{proc: launch(t, cmd), events: make(chan phoneEvent, 256)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("baresip says:\n%s", log.tail())
		}
	})
	var conn net.Conn
	until(t, 10*time.Second, "baresip listens", func() (ok bool) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ctrl))
		conn = c
		return err == nil
	})
	t.Cleanup(func() { _ = conn.Close() })
	go b.read(conn)
	until(t, 10*time.Second, extension+" has registered", func() bool {
		return strings.Contains(log.text(), "200 OK")
	})
	return b
}

// read takes baresip's events: netstrings of JSON.
func (b *softphone) read(conn net.Conn) {
	var buf []byte
	chunk := make([]byte, 4096)
	for {
		n, err := conn.Read(chunk)
		if err != nil {
			return
		}
		at := time.Now()
		for buf = append(buf, chunk[:n]...); ; {
			head, rest, ok := strings.Cut(string(buf), ":")
			size, err := strconv.Atoi(head)
			if !ok || err != nil || len(rest) < size+1 {
				break
			}
			var e phoneEvent
			if json.Unmarshal([]byte(rest[:size]), &e) == nil {
				e.at = at
				select {
				case b.events <- e:
				default:
				}
			}
			buf = []byte(rest[size+1:])
		}
	}
}

// awaitEvent waits for baresip to tell of something.
func (b *softphone) awaitEvent(t *testing.T, kind string) time.Time {
	t.Helper()
	over := time.After(20 * time.Second)
	for {
		select {
		case e := <-b.events:
			if e.Type == kind {
				return e.at
			}
		case <-over:
			t.Fatalf("baresip does not tell %s", kind)
		}
	}
}

// writeWAV writes a tone as 16-bit mono.
func writeWAV(t *testing.T, path string, hz float64, d time.Duration) {
	t.Helper()
	pcm := siptest.Tone(hz, d)
	b := []byte("RIFF____WAVEfmt ")
	b = binary.LittleEndian.AppendUint32(b, 16)
	for _, v := range []uint16{1, 1} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, 8000)
	b = binary.LittleEndian.AppendUint32(b, 16000)
	b = binary.LittleEndian.AppendUint16(b, 2)
	b = binary.LittleEndian.AppendUint16(b, 16)
	b = append(b, "data"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(2*len(pcm)))
	for _, v := range pcm {
		b = binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// sippCaller is SIPp as the carrier of one call: it calls number from a mobile, plays a pcap, and
// hangs up after a while.
const sippCaller = `<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="caller">
  <send retrans="500"><![CDATA[
INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:%[1]s@[local_ip]:[local_port]>;tag=[pid]SIPpTag[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:%[1]s@[local_ip]:[local_port]>
Max-Forwards: 70
Content-Type: application/sdp
Content-Length: [len]

v=0
o=user1 53655765 2353687637 IN IP[local_ip_type] [local_ip]
s=-
c=IN IP[media_ip_type] [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
a=ptime:20
]]></send>
  <recv response="100" optional="true"/>
  <recv response="180" optional="true"/>
  <recv response="183" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
ACK [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:%[1]s@[local_ip]:[local_port]>;tag=[pid]SIPpTag[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 1 ACK
Max-Forwards: 70
Content-Length: 0

]]></send>
  <nop><action><exec play_pcap_audio="%[2]s"/></action></nop>
  <pause milliseconds="%[3]d"/>
  <send retrans="500"><![CDATA[
BYE [next_url] SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
From: <sip:%[1]s@[local_ip]:[local_port]>;tag=[pid]SIPpTag[call_number]
To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]
Call-ID: [call_id]
CSeq: 2 BYE
Max-Forwards: 70
Content-Length: 0

]]></send>
  <recv response="200"/>
</scenario>
`

// sipp is SIPp on its way through one call.
type sipp struct {
	t        *testing.T
	proc     *process
	messages string // its trace
}

func startSIPp(t *testing.T, g *gateway, caller, number, pcap string, talk time.Duration) *sipp {
	t.Helper()
	dir := t.TempDir()
	scenario := filepath.Join(dir, "caller.xml")
	if err := os.WriteFile(scenario, []byte(fmt.Sprintf(sippCaller, caller, pcap, talk.Milliseconds())), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &sipp{t: t, messages: filepath.Join(t.ArtifactDir(), "sipp.messages")}
	log := newLog(t, "sipp.log")
	cmd := exec.Command("sipp", g.carriers.String(), "-sf", scenario, "-s", number, "-m", "1", "-l", "1",
		"-i", "127.0.0.1", "-mi", "127.0.0.1", "-p", strconv.Itoa(freePort(t)), "-mp", strconv.Itoa(freePort(t)&^1),
		"-nostdin", "-trace_msg", "-message_file", s.messages, "-timeout", "60s", "-timeout_error")
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	cmd.Env = append(os.Environ(), "TERM=dumb")
	s.proc = launch(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("SIPp says:\n%s", log.tail())
		}
	})
	return s
}

var sippMessage = regexp.MustCompile(`(?m)^-+ (\d{4}-\d\d-\d\d)[\sT]+(\d\d:\d\d:\d\d\.\d+)[^\n]*\n(?:UDP|TCP) message (sent|received)[^\n]*\n\n([^\r\n]+)`)

// at is when SIPp sent or got a message that begins so, in its own clock.
func (s *sipp) at(way, start string) time.Time {
	s.t.Helper()
	b, err := os.ReadFile(s.messages)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, m := range sippMessage.FindAllStringSubmatch(string(b), -1) {
		if m[3] != way || !strings.HasPrefix(m[4], start) {
			continue
		}
		at, err := time.ParseInLocation("2006-01-02 15:04:05.999999", m[1]+" "+m[2], time.Local)
		if err != nil {
			s.t.Fatal(err)
		}
		return at
	}
	s.t.Fatalf("SIPp has %s no %s:\n%s", way, start, b)
	return time.Time{}
}

// speech is a caller's RTP: a tone for d in A-law, and a key (RFC 4733, 160 ms) begun after a second.
// It is written as a pcap of Ethernet frames.
func writeSpeech(t *testing.T, path string, hz float64, d time.Duration, key byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	header := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	header = binary.LittleEndian.AppendUint16(header, 2)
	header = binary.LittleEndian.AppendUint16(header, 4)
	header = append(header, make([]byte, 8)...)
	header = binary.LittleEndian.AppendUint32(header, 65535)
	header = binary.LittleEndian.AppendUint32(header, 1) // Ethernet
	w := &pcapWriter{out: f}
	if _, err := f.Write(header); err != nil {
		t.Fatal(err)
	}
	const begin, last = 50, 57 // packets of the key
	tone := siptest.ALaw(siptest.Tone(hz, d))
	for n := 0; (n+1)*frame <= len(tone); n++ {
		at := time.Duration(n) * 20 * time.Millisecond
		if n < begin || n > last {
			w.packet(at, 8, n == 0, uint32(n*frame), tone[n*frame:(n+1)*frame])
			continue
		}
		event := []byte{byte(strings.IndexByte("0123456789*#", key)), 10, 0, 0}
		binary.BigEndian.PutUint16(event[2:], uint16((n-begin+1)*frame))
		repeats := 1
		if n == last { // the end comes thrice
			event[1] |= 0x80
			repeats = 3
		}
		for range repeats {
			w.packet(at, 101, n == begin, begin*frame, event)
		}
	}
	if w.err != nil {
		t.Fatal(w.err)
	}
}

// pcapWriter writes RTP packets into a capture.
type pcapWriter struct {
	out io.Writer
	seq uint16
	err error
}

func (w *pcapWriter) packet(at time.Duration, kind byte, marker bool, stamp uint32, payload []byte) {
	w.seq++
	rtp := []byte{0x80, kind}
	if marker {
		rtp[1] |= 0x80
	}
	rtp = binary.BigEndian.AppendUint16(rtp, w.seq)
	rtp = binary.BigEndian.AppendUint32(rtp, stamp)
	rtp = append(binary.BigEndian.AppendUint32(rtp, 0x51bb), payload...)
	udp := binary.BigEndian.AppendUint16(nil, 6000)
	udp = binary.BigEndian.AppendUint16(udp, 6000)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(rtp)))
	udp = append(append(udp, 0, 0), rtp...)
	ip := []byte{0x45, 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(udp)))
	ip = append(ip, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1)
	eth := append(make([]byte, 12), 0x08, 0x00)
	full := append(append(eth, ip...), udp...)
	head := binary.LittleEndian.AppendUint32(nil, uint32(at/time.Second))
	head = binary.LittleEndian.AppendUint32(head, uint32(at%time.Second/time.Microsecond))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(full)))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(full)))
	if _, err := w.out.Write(append(head, full...)); err != nil {
		w.err = err
	}
}
