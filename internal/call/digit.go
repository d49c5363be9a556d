package call

import "time"

// Digit is one key of a telephone, told once.
type Digit struct {
	Key    byte // '0' to '9', '*', '#', 'A' to 'D'
	At     time.Time
	Source DigitSource
}

// DigitSource is the way a digit came.
type DigitSource string

// The ways of a digit.
const (
	DigitRTP    DigitSource = "rfc4733"
	DigitInfo   DigitSource = "info"
	DigitInband DigitSource = "inband"
)

// ValidDigit tells whether b is a telephone key.
func ValidDigit(b byte) bool {
	return b >= '0' && b <= '9' || b == '*' || b == '#' || b >= 'A' && b <= 'D'
}

// EventKind is the kind of a leg's event.
type EventKind string

// The events of a leg.
const (
	HoldEvent     EventKind = "hold"     // the party put us on hold
	ResumeEvent   EventKind = "resume"   // the party came back
	TransferEvent EventKind = "transfer" // the party asks to be transferred (REFER); Target says where
)

// Event is what a party did beside speaking and pressing keys.
type Event struct {
	Kind   EventKind
	Target string
	At     time.Time
}
