package ivr

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/hotline12345/gateway/internal/call"
)

// Config is the section ivr.
type Config struct {
	// Flows is the directory of the flows, one *.yaml each; "" takes the built-in ones.
	Flows string `yaml:"flows"`
	// Default is the flow of a call that no route names.
	Default string `yaml:"default"`
	// Routes lead calls to flows; the first that fits is taken.
	Routes []Route `yaml:"routes"`
	// Language is spoken until a caller chooses: zh or en.
	Language string `yaml:"language"`
	// StuckAfter is how long a caller may stay in a flow without coming to a new node; then a person
	// answers. 30s to 30m.
	StuckAfter time.Duration `yaml:"stuck_after"`
	// Targets are where transfer nodes may lead, by name. A caller never chooses a destination.
	Targets map[string]Target `yaml:"targets"`
}

// Route leads calls to a number, on a trunk, to a flow. An empty field fits every call.
type Route struct {
	Called string `yaml:"called"`
	Trunk  string `yaml:"trunk"`
	Flow   string `yaml:"flow"`
}

// Target is a number on a trunk, or an extension.
type Target struct {
	Trunk     string `yaml:"trunk"`
	Number    string `yaml:"number"`
	Extension string `yaml:"extension"`
}

func (t Target) endpoint() call.Endpoint {
	if t.Extension != "" {
		return call.Endpoint{Kind: call.ToExtension, Name: t.Extension}
	}
	return call.Endpoint{Kind: call.ToTrunk, Name: t.Trunk, Number: t.Number}
}

// Defaults are the built-in flows: a person first, in Mandarin.
func Defaults() Config {
	return Config{Default: "default", Language: "zh", StuckAfter: 5 * time.Minute}
}

// Validate tells everything that is wrong with the section. The flows themselves are checked by New.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Flows != "" {
		if info, err := os.Stat(c.Flows); err != nil || !info.IsDir() {
			fault("flows: %q is no directory; make it, or write \"\" for the built-in flows", c.Flows)
		}
	}
	if c.Default == "" {
		fault("default: no flow; write the name of one, such as default")
	}
	for i, r := range c.Routes {
		if r.Flow == "" {
			fault("routes[%d].flow: no flow; write the name of one, such as default", i)
		}
		if r.Called == "" && r.Trunk == "" {
			fault("routes[%d]: fits every call; write called or trunk, or use default", i)
		}
	}
	if c.Language != "zh" && c.Language != "en" {
		fault("language: %q is no language of the line; write zh or en", c.Language)
	}
	if c.StuckAfter < 30*time.Second || c.StuckAfter > 30*time.Minute {
		fault("stuck_after: %s is not from 30s to 30m; write 5m", c.StuckAfter)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Targets)) {
		t := c.Targets[name]
		if (t.Extension == "") == (t.Trunk == "" || t.Number == "") || t.Extension != "" && t.Trunk+t.Number != "" {
			fault("targets.%s: neither a phone nor a number on a trunk; write extension, or trunk and number", name)
		}
	}
	return errors.Join(faults...)
}
