package siptest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Message is a SIP message as the phone read it.
type Message struct {
	Raw   string
	Start string // the first line
	Body  string
	From  netip.AddrPort
	At    time.Time

	fields [][2]string // name in lower case, value
}

var compact = map[string]string{"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact",
	"l": "content-length", "c": "content-type"}

// ParseMessage splits raw text. It checks nothing: a phone has to see what is wrong.
func ParseMessage(raw string) Message {
	m := Message{Raw: raw}
	head, body, _ := strings.Cut(raw, "\r\n\r\n")
	m.Body = body
	lines := strings.Split(head, "\r\n")
	m.Start = lines[0]
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if long, ok := compact[name]; ok {
			name = long
		}
		m.fields = append(m.fields, [2]string{name, strings.TrimSpace(value)})
	}
	return m
}

// Get is a header's first value, or "".
func (m Message) Get(name string) string {
	for _, f := range m.fields {
		if f[0] == strings.ToLower(name) {
			return f[1]
		}
	}
	return ""
}

// All is every value of a header.
func (m Message) All(name string) []string {
	var all []string
	for _, f := range m.fields {
		if f[0] == strings.ToLower(name) {
			all = append(all, f[1])
		}
	}
	return all
}

// Method is a request's method, or "".
func (m Message) Method() string {
	if m.Status() != 0 {
		return ""
	}
	method, _, _ := strings.Cut(m.Start, " ")
	return method
}

// URI is a request's Request-URI, or "".
func (m Message) URI() string {
	parts := strings.Split(m.Start, " ")
	if m.Status() != 0 || len(parts) != 3 {
		return ""
	}
	return parts[1]
}

// Status is a response's status, or 0.
func (m Message) Status() int {
	rest, ok := strings.CutPrefix(m.Start, "SIP/2.0 ")
	if !ok || len(rest) < 3 {
		return 0
	}
	n, _ := strconv.Atoi(rest[:3])
	return n
}

// CSeq is the sequence number and the method.
func (m Message) CSeq() (uint32, string) {
	number, method, _ := strings.Cut(m.Get("CSeq"), " ")
	n, _ := strconv.ParseUint(number, 10, 32)
	return uint32(n), strings.TrimSpace(method)
}

// Tag is the tag of the header From or To, or "".
func (m Message) Tag(header string) string { return param(m.Get(header), "tag") }

// Branch is the branch of the top Via.
func (m Message) Branch() string { return param(m.Get("Via"), "branch") }

// Contact is the URI of Contact.
func (m Message) Contact() string { return uri(m.Get("Contact")) }

// String names a message shortly: "INVITE", or "200 INVITE".
func (m Message) String() string {
	if s := m.Status(); s != 0 {
		_, method := m.CSeq()
		return fmt.Sprintf("%d %s", s, method)
	}
	return m.Method()
}

// Is tells whether the message is what: "BYE", "200", or "200 INVITE".
func (m Message) Is(what string) bool {
	return m.String() == what || m.Status() != 0 && strconv.Itoa(m.Status()) == what
}

// param is a parameter of a name-addr header, outside the angle brackets.
func param(header, name string) string {
	if i := strings.LastIndex(header, ">"); i >= 0 {
		header = header[i+1:]
	}
	for p := range strings.SplitSeq(header, ";") {
		if k, v, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(k, name) {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// uri is the URI of a name-addr header.
func uri(header string) string {
	if _, rest, ok := strings.Cut(header, "<"); ok {
		u, _, _ := strings.Cut(rest, ">")
		return u
	}
	u, _, _ := strings.Cut(header, ";")
	return strings.TrimSpace(u)
}
