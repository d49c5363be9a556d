package staff

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Role is what a person may do.
type Role string

// The roles.
const (
	Agent      Role = "agent"      // takes calls
	Supervisor Role = "supervisor" // leads agents, approves measures of level 1
	Manager    Role = "manager"    // approves measures of every level, confirms restorations
	Auditor    Role = "auditor"    // reads everything, changes nothing
	Admin      Role = "admin"      // keeps people and settings; decides on no caller
)

// Roles lists every role.
func Roles() []Role { return []Role{Agent, Supervisor, Manager, Auditor, Admin} }

// Person is someone who works at the hotline.
type Person struct {
	ID        string         `json:"id"`   // 1 to 32 of a-z 0-9 . _ -, never used again
	Name      string         `json:"name"` // as colleagues write it, 张伟
	Roles     []Role         `json:"roles"`
	Extension string         `json:"extension,omitempty"` // the phone on their desk
	Queues    map[string]int `json:"queues,omitempty"`    // the queues they serve, by level: 1 is asked first, to 9
	Language  string         `json:"language"`            // of the console: "zh" or "en"
	Disabled  bool           `json:"disabled,omitempty"`  // may not log in any more; kept for the log's sake
}

// Has tells whether the person has one of the roles.
func (p Person) Has(roles ...Role) bool {
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(p.Roles, r) })
}

// keeps tells whether the person may keep people and settings.
func (p Person) keeps() bool { return p.Has(Admin) && !p.Disabled }

// Distinct tells whether no two of the ids are one person, as every rule of two people demands. An
// empty id is nobody and is never distinct.
func Distinct(ids ...string) bool {
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		id = fold(id)
		if id == "" || seen[id] {
			return false
		}
		seen[id] = true
	}
	return true
}

// fold makes an id of what a person typed.
func fold(id string) string { return strings.ToLower(strings.TrimSpace(id)) }

var (
	validID        = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)
	validExtension = regexp.MustCompile(`^[0-9]{2,8}$`)
	validPIN       = regexp.MustCompile(`^[0-9]{6,12}$`)
)

// check names everything that is wrong with a person.
func (p Person) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("staff: "+format, args...)) }
	if !validID.MatchString(p.ID) {
		bad("id %q: use 1 to 32 of a-z 0-9 . _ -", p.ID)
	}
	if n := len([]rune(p.Name)); n < 1 || n > 64 {
		bad("name: use 1 to 64 characters")
	}
	if p.Extension != "" && !validExtension.MatchString(p.Extension) {
		bad("extension %q: use 2 to 8 digits", p.Extension)
	}
	if p.Language != "zh" && p.Language != "en" {
		bad("language %q: use zh or en", p.Language)
	}
	if len(p.Roles) == 0 {
		bad("roles: give at least one of %v", Roles())
	}
	for _, r := range p.Roles {
		if !slices.Contains(Roles(), r) {
			bad("role %q: use one of %v", r, Roles())
		}
	}
	for q, level := range p.Queues {
		if q == "" || level < 1 || level > 9 {
			bad("queue %q: level %d is not 1 to 9", q, level)
		}
	}
	return errors.Join(errs...)
}
