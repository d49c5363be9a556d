package asterisk

import (
	"strings"
	"testing"
	"time"
)

func TestConfigSaysWhatIsWrong(t *testing.T) {
	good := Defaults()
	good.SoundsDir = "/var/lib/hotline/sounds"
	good.Trunks = []Trunk{{Name: "telecom", Endpoint: "telecom"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"url: ":                func(c *Config) { c.URL = "127.0.0.1:8088" },
		"username: ":           func(c *Config) { c.Username = "" },
		"sounds_dir: ":         func(c *Config) { c.SoundsDir = "sounds" },
		"media_addr: ":         func(c *Config) { c.MediaAddr = "localhost" },
		"trunks[0]: ":          func(c *Config) { c.Trunks = []Trunk{{Name: "a", Endpoint: "b&PJSIP/c"}} },
		"trunks[1].endpoint: ": func(c *Config) { c.Trunks = append(c.Trunks, c.Trunks[0]) },
		"timeout: ":            func(c *Config) { c.Timeout = time.Minute },
		"lost_after: ":         func(c *Config) { c.LostAfter = 0 },
		"rtp_ports: ":          func(c *Config) { c.RTPPorts = 0 },
		"max_calls: ":          func(c *Config) { c.MaxCalls = 0 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestCallerIDHoldsNoOrders(t *testing.T) {
	if got, want := callerID("a\"b<c>\r\n", "1<2>\""), `"abc" <12>`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
