package trunk

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/hotline12345/gateway/internal/call"
)

// maxRaw bounds a raw number that is kept, in bytes.
const maxRaw = 64

// Plan is the numbering plan seen from one city: its area code, and the hotline's own numbers.
type Plan struct {
	area string              // without the 0: "571"
	own  map[string]bool     // E.164
	bare map[string]struct{} // own short numbers as dialled inside the city: "12345"
	name map[string]string   // E.164 of an own number, to the form it was written in
}

// NewPlan makes a plan. area is the city's area code with or without its 0 ("571" or "0571"); own
// are the hotline's own numbers in any form, a short one being the city's own.
func NewPlan(area string, own []string) (*Plan, error) {
	area = strings.TrimPrefix(area, "0")
	if _, _, ok := plain(area); !ok || areaLen(area) != len(area) {
		return nil, fmt.Errorf("area_code: %q is no area code of China; write it as 571", area)
	}
	p := &Plan{area: area, own: map[string]bool{}, bare: map[string]struct{}{}, name: map[string]string{}}
	for _, o := range own {
		if service(o) {
			p.bare[o] = struct{}{}
		}
	}
	for i, o := range own {
		n := p.Parse(o)
		if n.E164 == "" {
			return nil, fmt.Errorf("own_numbers[%d]: %q is no number; write it as 12345 or 0571-12345", i, o)
		}
		p.own[n.E164] = true
		p.name[n.E164] = o
	}
	return p, nil
}

// Own tells whether n is one of the hotline's own numbers, in whatever form it was written.
func (p *Plan) Own(n call.Number) bool { return n.E164 != "" && p.own[n.E164] }

// Parse reads the user part of a SIP URI or the subscriber of a tel URI (RFC 3966), parameters such
// as phone-context included. The raw value is kept; E164 stays empty when it is no number.
func (p *Plan) Parse(raw string) call.Number {
	if len(raw) > maxRaw {
		return call.Number{Raw: raw[:maxRaw]}
	}
	user, params, _ := strings.Cut(raw, ";")
	if dec, err := url.PathUnescape(user); err == nil {
		user = dec
	}
	n := call.Number{Raw: user}
	digits, plus, ok := plain(user)
	if !ok {
		return n
	}
	// RFC 3966 section 5.1.5: a local number is read in the context it names; a global context is a
	// prefix, a domain says nothing about digits.
	if ctx := param(params, "phone-context"); !plus && strings.HasPrefix(ctx, "+") {
		if c, _, ok := plain(ctx); ok {
			digits, plus = c+strings.TrimPrefix(digits, "0"), true
		}
	}
	n.E164 = p.e164(digits, plus)
	return n
}

// e164 is the canonical form of a run of digits, or "".
func (p *Plan) e164(d string, plus bool) string {
	switch {
	case plus:
		return p.international(d)
	case strings.HasPrefix(d, "00"):
		return p.international(d[2:])
	case strings.HasPrefix(d, "0"):
		return p.national(d[1:])
	}
	// No subscriber has 9 digits or more, so 86 before that many is the country.
	if rest, ok := strings.CutPrefix(d, "86"); ok && len(d) >= 9 {
		if n := p.national(rest); n != "" {
			return n
		}
	}
	if _, ok := p.bare[strings.TrimPrefix(d, p.area)]; ok {
		return p.national(d)
	}
	switch {
	case subscriber(d), service(d):
		return p.national(d)
	case local(d):
		return p.national(p.area + d)
	}
	return ""
}

// international reads digits that begin with a country code (E.164: 15 digits at most).
func (p *Plan) international(d string) string {
	if rest, ok := strings.CutPrefix(d, "86"); ok {
		return p.national(strings.TrimPrefix(rest, "0")) // +86 0571 is seen, and means +86 571
	}
	if len(d) < 7 || len(d) > 15 || d[0] == '0' {
		return ""
	}
	return "+" + d
}

// national reads a national significant number of China.
func (p *Plan) national(d string) string {
	if _, ok := p.bare[d]; ok {
		return "+86" + p.area + d // the city's own short number, whoever wrote it without its area
	}
	n := areaLen(d)
	if subscriber(d) || service(d) || n > 0 && service(d[n:]) {
		return "+86" + d
	}
	return ""
}

// subscriber tells whether d is a whole national number: mobile, machine, 400/800 or area and local.
func subscriber(d string) bool {
	n := areaLen(d)
	switch {
	case len(d) == 11 && d[0] == '1' && d[1] >= '3':
		return true
	case len(d) == 13 && (d[:2] == "10" || d[:2] == "14"):
		return true
	case len(d) == 10 && (d[:3] == "400" || d[:3] == "800"):
		return true
	case n == 2:
		return len(d) == 10 && local(d[2:])
	default:
		return n == 3 && (len(d) == 10 || len(d) == 11) && local(d[3:])
	}
}

// local tells whether d is a subscriber number inside an area.
func local(d string) bool {
	return (len(d) == 7 || len(d) == 8) && d[0] >= '2' && d[0] <= '9'
}

// service tells whether d is a short number: 110, 12345, 10086, 95588, 96345.
func service(d string) bool {
	_, _, ok := plain(d)
	return ok && (d[0] == '1' && len(d) >= 3 && len(d) <= 6 || d[0] == '9' && len(d) >= 5 && len(d) <= 6)
}

// areaLen is the length of the area code that d begins with, or 0: 10, 2x, or three digits.
func areaLen(d string) int {
	switch {
	case strings.HasPrefix(d, "10"), len(d) >= 2 && d[0] == '2':
		return 2
	case len(d) >= 3 && d[0] >= '3':
		return 3
	}
	return 0
}

// plain drops visual separators (RFC 3966 section 5.1.1) and tells a leading plus.
func plain(s string) (digits string, plus, ok bool) {
	s = strings.TrimSpace(s)
	if s, plus = strings.CutPrefix(s, "+"); s == "" {
		return "", plus, false
	}
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			b.WriteByte(c)
		case c == '-' || c == '.' || c == '(' || c == ')' || c == ' ':
		default:
			return "", plus, false
		}
	}
	return b.String(), plus, b.Len() > 0
}

// param is the value of a ;name=value parameter.
func param(params, name string) string {
	for kv := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(kv, "=")
		if strings.EqualFold(strings.TrimSpace(k), name) {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}
