package emergency

import "slices"

// floor is what the phrases and rules say alone.
type floor struct {
	action  Action
	service string
	firm    bool // an operator's own phrase, or a service asked for: no classifier overrules it
}

// precedence is the service of two that an utterance names alike: where people burn or are trapped first.
var precedence = []string{"119", "120", "110", "122", anyService}

// suppress marks the hits of danger that something speaks against.
func (s *scan) suppress() {
	var said [16]bool // by kind
	for _, h := range s.hits {
		if h.tier == suppressor {
			said[slices.Index(kinds, h.service)] = true
		}
	}
	has := func(kind string) bool { return said[slices.Index(kinds, kind)] }
	for i := range s.hits {
		h := &s.hits[i]
		if h.tier == suppressor {
			continue
		}
		switch {
		case h.own && h.tier == danger && !s.near(h):
		case s.masked(h, compound):
			h.off = compound
		case s.masked(h, number):
			h.off = number
		case s.near(h):
			h.off = negation
		case h.tier == cue:
		default:
			h.off = overall(has)
		}
	}
}

// overall is what speaks against all danger in an utterance. Urgency overrides what is only a manner of
// speaking of danger, not what says that there is none.
func overall(has func(kind string) bool) string {
	for _, k := range []string{misdial, drill, figurative, resolved, hypothetical} {
		if has(k) {
			return k
		}
	}
	if has(urgent) {
		return ""
	}
	for _, k := range []string{past, fiction, chronic, business} {
		if has(k) {
			return k
		}
	}
	return ""
}

// masked tells whether a suppressor of the kind shares characters with the hit, and says more.
func (s *scan) masked(h *hit, kind string) bool {
	return slices.ContainsFunc(s.hits, func(m hit) bool {
		return m.service == kind && m.start < h.end && h.start < m.end && (m.end-m.start > h.end-h.start || h.rule)
	})
}

// near tells whether a negation stands before the hit in its clause, and is one.
func (s *scan) near(h *hit) bool {
	return slices.ContainsFunc(s.hits, func(n hit) bool {
		if n.service != negation || n.end > h.start || n.start < h.start-reach {
			return false
		}
		if slices.Contains(s.breaks[n.end:h.start+1], true) {
			return false
		}
		return !slices.ContainsFunc(s.hits, func(o hit) bool { // 有没有, 没呼吸
			return (o.service == unsaid || o.tier == danger || o.tier == request) && o.start <= n.start && n.end <= o.end
		})
	})
}

// settle sets the floor: danger is a transfer; danger with a cue, and a service asked for, are asked about.
// A cry that names no service makes the most of what is named beside it.
func (s *scan) settle() {
	s.floor = floor{action: None, service: "none"}
	cued, cry := false, false
	for _, h := range s.hits {
		if h.off == "" {
			cued = cued || h.tier == cue || h.service == urgent
			cry = cry || h.service == anyService && (h.tier == danger || h.tier == request)
		}
	}
	for _, service := range precedence {
		for _, h := range s.hits {
			if h.service != service || h.off != "" {
				continue
			}
			f := floor{action: h.asks(cued, cry), service: service, firm: h.own || h.tier == request}
			if f.action > s.floor.action || f.action == s.floor.action && f.action != None && f.firm && !s.floor.firm {
				s.floor = f
			}
		}
	}
}

// asks is what a hit asks for, beside a cue and a cry.
func (h *hit) asks(cued, cry bool) Action {
	switch {
	case h.tier == suppressor || h.tier == cue:
		return None
	case h.tier == request || h.service == anyService && (h.tier == danger || cued):
		return Confirm
	case h.tier == danger, h.tier == weak && cry && h.service != anyService:
		return Transfer
	case h.tier == weak && cued:
		return Confirm
	}
	return None
}
