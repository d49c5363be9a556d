package dialog

import (
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"

	"github.com/hotline12345/gateway/internal/call"
)

// headered is what requests and responses share for reading.
type headered interface {
	GetHeaders(name string) []sip.Header
}

// values is every value of a comma-separated header.
func values(m headered, name string) []string {
	var all []string
	for _, h := range m.GetHeaders(name) {
		for v := range strings.SplitSeq(h.Value(), ",") {
			if v = strings.TrimSpace(v); v != "" {
				all = append(all, v)
			}
		}
	}
	return all
}

// ReasonOf is the cause that a message's Reason header gives (RFC 3326): a Q.850 value before a SIP
// status. ok is false without one.
func ReasonOf(m headered) (cause call.Cause, ok bool) {
	for _, v := range values(m, "Reason") {
		protocol, params, _ := strings.Cut(v, ";")
		n := reasonCause(params)
		if n == 0 {
			continue
		}
		switch strings.ToUpper(strings.TrimSpace(protocol)) {
		case "Q.850":
			return call.Cause(n), true
		case "SIP":
			cause, ok = call.CauseOfStatus(n), true
			if n == 200 { // "Call completed elsewhere", RFC 3326 section 2
				cause = call.CauseElsewhere
			}
		}
	}
	return cause, ok
}

func reasonCause(params string) int {
	for p := range strings.SplitSeq(params, ";") {
		if name, value, _ := strings.Cut(strings.TrimSpace(p), "="); strings.EqualFold(name, "cause") {
			if n, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && n > 0 && n < 700 {
				return n
			}
		}
	}
	return 0
}

// reason is the Reason header of a cause.
func reason(cause call.Cause) sip.Header {
	if cause == call.CauseElsewhere {
		return sip.NewHeader("Reason", `SIP;cause=200;text="Call completed elsewhere"`) // RFC 3326 section 2
	}
	value, text, named := strings.Cut(cause.String(), " ")
	if named {
		value += `;text="` + text + `"`
	}
	return sip.NewHeader("Reason", value)
}

// phrases are the usual reason phrases of the statuses that the line sends.
var phrases = map[int]string{
	100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
	200: "OK", 202: "Accepted", 302: "Moved Temporarily", 400: "Bad Request", 401: "Unauthorized",
	403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
	407: "Proxy Authentication Required", 408: "Request Timeout", 415: "Unsupported Media Type",
	416: "Unsupported URI Scheme", 420: "Bad Extension", 423: "Interval Too Brief",
	480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
	483: "Too Many Hops", 484: "Address Incomplete", 486: "Busy Here", 487: "Request Terminated",
	488: "Not Acceptable Here", 489: "Bad Event", 491: "Request Pending", 500: "Server Internal Error",
	503: "Service Unavailable", 504: "Server Time-out", 505: "Version Not Supported", 603: "Decline",
}

func phrase(status int) string {
	if p, ok := phrases[status]; ok {
		return p
	}
	return "Status " + strconv.Itoa(status)
}
