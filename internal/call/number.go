package call

import (
	"log/slog"
	"strings"
)

// Number is a telephone number: as normalised, and as the wire brought it.
//
// It masks itself in a log and in every format verb: whoever needs the digits reads the field.
type Number struct {
	E164 string // "+8657112345678", or "" when the raw value is no number
	Raw  string // the user part as it came
}

// String is the masked form.
func (n Number) String() string { return n.Masked() }

// Masked keeps the first three and the last four digits of a national number: 138****5678.
func (n Number) Masked() string {
	d := n.National()
	switch {
	case d == "":
		return "anonymous"
	case len(d) <= 4:
		return strings.Repeat("*", len(d))
	case len(d) <= 7:
		return strings.Repeat("*", len(d)-2) + d[len(d)-2:]
	default:
		return d[:3] + strings.Repeat("*", len(d)-7) + d[len(d)-4:]
	}
}

// National is the number as dialled inside China: a mobile number bare, a fixed one with 0 and its
// area, a foreign one with 00. It is the raw value when there is no E.164 form.
func (n Number) National() string {
	switch {
	case n.E164 == "":
		return n.Raw
	case !strings.HasPrefix(n.E164, "+86"):
		return "00" + n.E164[1:]
	case len(n.E164) == 14 && n.E164[3] == '1':
		return n.E164[3:]
	default:
		return "0" + n.E164[3:]
	}
}

// LogValue implements [slog.LogValuer]: privacy by type.
func (n Number) LogValue() slog.Value { return slog.StringValue(n.Masked()) }

// GoString keeps %#v from printing the digits.
func (n Number) GoString() string { return "call.Number(" + n.Masked() + ")" }

// Identity is what can be believed of a caller's number (art29: identity classes).
type Identity string

// The identity classes.
const (
	Verified  Identity = "verified"  // a personal number asserted by a trusted trunk
	Shared    Identity = "shared"    // many people's number: a PBX, a payphone, a hospital
	Anonymous Identity = "anonymous" // withheld or missing
	Spoof     Identity = "spoof"     // contradictory, or unasserted where the trunk demands it
)
