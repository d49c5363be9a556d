package ivr

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// china is the clock of the city: no daylight saving since 1991, so it needs no zone file.
var china = time.FixedZone("Asia/Shanghai", 8*60*60)

// Schedule is when a line is open, by the city's clock.
type Schedule struct {
	Week     [7][]Span       // by time.Weekday
	Holidays map[string]bool // closed all day, as "2026-10-01"
	Workdays map[string]bool // open as on a Monday, as "2026-10-10": a weekend day worked in exchange
}

// Span is a half-open part of a day, in minutes from midnight.
type Span struct{ From, To int }

// OpenAt tells whether the schedule is open at a time.
func (s Schedule) OpenAt(t time.Time) bool {
	t = t.In(china)
	day, weekday := t.Format(time.DateOnly), t.Weekday()
	switch {
	case s.Holidays[day]:
		return false
	case s.Workdays[day]:
		weekday = time.Monday
	}
	minute := t.Hour()*60 + t.Minute()
	for _, span := range s.Week[weekday] {
		if minute >= span.From && minute < span.To {
			return true
		}
	}
	return false
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (p *flowReader) hours(s *section, n *Node) {
	n.Open, n.Closed = p.way(s, n, "open"), p.way(s, n, "closed")
	n.Schedule.Holidays = p.days(s, "holidays")
	n.Schedule.Workdays = p.days(s, "workdays")
	week := s.sub("week", "week of "+s.name)
	if week == nil {
		s.report(s.where("week"), s.name+" has no week", "write week: and under it lines such as mon-fri: 08:30-17:30")
		return
	}
	for _, key := range week.keys {
		days, ok := weekdayRange(key)
		if !ok {
			p.report(week.fields[key].at, fmt.Sprintf("%q is no day of the week", key), "write mon, or mon-fri; the days are "+strings.Join(weekdays, ", "))
			continue
		}
		for i, text := range week.list(key) {
			span, ok := daySpan(text)
			if !ok {
				p.report(week.item(key, i), fmt.Sprintf("%q is no part of a day", text), "write it as 08:30-17:30; a night is 20:00-24:00 and, on the next day, 00:00-08:00")
				continue
			}
			for _, d := range days {
				n.Schedule.Week[d] = append(n.Schedule.Week[d], span)
			}
		}
	}
}

func (p *flowReader) days(s *section, key string) map[string]bool {
	days := map[string]bool{}
	for i, text := range s.list(key) {
		if _, err := time.Parse(time.DateOnly, text); err != nil {
			p.report(s.item(key, i), fmt.Sprintf("%q is no day", text), "write it as 2026-10-01")
			continue
		}
		days[text] = true
	}
	return days
}

// weekdayRange reads "sat", or "mon-fri"; a range may go over the week's end.
func weekdayRange(text string) ([]int, bool) {
	from, to, isRange := strings.Cut(text, "-")
	if !isRange {
		to = from
	}
	first, last := slices.Index(weekdays, from), slices.Index(weekdays, to)
	if first < 0 || last < 0 {
		return nil, false
	}
	days := []int{first}
	for d := first; d != last; {
		d = (d + 1) % 7
		days = append(days, d)
	}
	return days, true
}

// daySpan reads "08:30-17:30"; 24:00 is the day's end.
func daySpan(text string) (Span, bool) {
	from, to, ok := strings.Cut(text, "-")
	s := Span{minuteOf(from), minuteOf(to)}
	return s, ok && s.From >= 0 && s.To > s.From
}

func minuteOf(text string) int {
	if text == "24:00" {
		return 24 * 60
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return -1
	}
	return t.Hour()*60 + t.Minute()
}
