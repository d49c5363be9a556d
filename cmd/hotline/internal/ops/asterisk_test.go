package ops

import (
	"bytes"
	"cmp"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/asterisk/asterisktest"
	"github.com/hotline12345/gateway/internal/call"
	"github.com/hotline12345/gateway/ivr/prompt"
)

// spoken is a short prompt.
func spoken() (*call.Clip, error) {
	voices, err := prompt.New(prompt.Defaults(), nil)
	if err != nil {
		return nil, err
	}
	return voices.Say("zh", "digits:1")[0], nil
}

// look is what the doctor finds of an Asterisk, by code.
func look(t *testing.T, in AsteriskInputs) map[string]Finding {
	t.Helper()
	in.Prompt = spoken
	out := map[string]Finding{}
	for _, f := range Examine(t.Context(), Inputs{Asterisk: &in}) {
		if strings.HasPrefix(f.Code, "asterisk") {
			out[f.Code] = f
		}
	}
	return out
}

// passwordFile holds a password, for its owner alone.
func passwordFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDoctorAtAsterisk looks at a real Asterisk: first all is well, then one thing after the other is not.
func TestDoctorAtAsterisk(t *testing.T) {
	ast := asterisktest.Start(t, "node1", "127.0.0.1:5999")
	cfg := asterisk.Defaults()
	cfg.URL, cfg.Username, cfg.PasswordFile = ast.URL, ast.User, passwordFile(t, ast.Secret)
	cfg.SoundsDir, cfg.Timeout = filepath.Join(ast.Dir, "sounds"), 10*time.Second // the machine may be busy
	cfg.Trunks = []asterisk.Trunk{{Name: "carrier-a", Endpoint: "carrier"}}
	for code, f := range look(t, AsteriskInputs{Config: cfg, Node: "node1"}) {
		if want := map[string]Level{"asterisk_way": Warn}[code]; f.Level != cmp.Or(want, Well) { // its password is the example's
			t.Errorf("%s is %s: %s", code, f.Level, f.Detail)
		}
		if code == "asterisk_trunks" && f.Detail != "carrier-a to 127.0.0.1:5999" {
			t.Errorf("the trunks: %s", f.Detail)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name       string
		edit       func(*AsteriskInputs)
		code       string
		level      Level
		said, mend string
	}{
		{"another gateway's", func(in *AsteriskInputs) { in.Node = "node7" }, "asterisk_app", Bad, "hotline-node1", "GATEWAY = hotline-node7"},
		{"no such endpoint", func(in *AsteriskInputs) { in.Config.Trunks = []asterisk.Trunk{{Name: "b", Endpoint: "b"}} }, "asterisk_trunks", Warn, "b", "aor"},
		{"wrong password", func(in *AsteriskInputs) { in.Config.PasswordFile = passwordFile(t, "wrong") }, "asterisk", Bad, "401", "[hotline]"},
		{"nobody there", func(in *AsteriskInputs) { in.Config.URL = nobody(t) }, "asterisk", Bad, "refused", "http.conf"},
		{"another directory", func(in *AsteriskInputs) { in.Config.SoundsPath = t.TempDir() }, "asterisk_sounds", Bad, asterisk.ErrUnread.Error(), "sounds_path"},
		{"sound goes elsewhere", func(in *AsteriskInputs) { in.Config.MediaAddr = "192.0.2.1" }, "asterisk_sounds", Bad, "media_addr", "media_addr"},
		{"no directory", func(in *AsteriskInputs) { in.Config.SoundsDir = "/proc/sounds" }, "asterisk_sounds", Bad, "/proc/sounds", "install -d"},
		{"no keys by INFO", func(*AsteriskInputs) { must(ast.Command("module unload res_pjsip_dtmf_info.so")) }, "asterisk_modules", Bad, "res_pjsip_dtmf_info", "load = res_pjsip_dtmf_info.so"},
		{"not heard", func(*AsteriskInputs) { silence(t, cfg.SoundsDir) }, "asterisk_sounds", Bad, asterisk.ErrUnheard.Error(), "UDP"},
		{"may only read", func(*AsteriskInputs) {
			must(ast.Edit("ari.conf", "read_only = no", "read_only = yes"))
			must(ast.Command("module reload res_ari.so"))
		}, "asterisk_user", Bad, "only read", "read_only = no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := AsteriskInputs{Config: cfg, Node: "node1"}
			c.edit(&in)
			f := look(t, in)[c.code]
			if f.Level != c.level || !strings.Contains(f.Detail, c.said) || !strings.Contains(f.Mend, c.mend) {
				t.Errorf("%s: %s, mend: %s", f.Level, f.Detail, f.Mend)
			}
		})
	}
}

// nobody is an address at which nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.NotFoundHandler())
	srv.Close()
	return srv.URL + "/ari"
}

// silence makes every prompt in a directory one that nobody hears.
func silence(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.alaw"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v in %s, %v", files, dir, err)
	}
	for _, path := range files {
		info, err := os.Stat(path)
		if err == nil {
			err = os.WriteFile(path, bytes.Repeat([]byte{0xd5}, int(info.Size())), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestDoctorAtFake looks at what a real Asterisk of this machine cannot be.
func TestDoctorAtFake(t *testing.T) {
	well := map[string]string{"/ari/asterisk/info": `{"system":{"version":"20.5.2"}}`}
	for _, c := range []struct {
		name    string
		answers map[string]string
		edit    func(*asterisk.Config)
		code    string
		level   Level
		said    string
	}{
		{"known", well, nil, "asterisk", Well, "20.5.2"},
		{"certified", map[string]string{"/ari/asterisk/info": `{"system":{"version":"certified/18.9-cert8"}}`}, nil, "asterisk", Well, "18.9"},
		{"too old", map[string]string{"/ari/asterisk/info": `{"system":{"version":"16.28.0"}}`}, nil, "asterisk", Warn, "16.28.0"},
		{"no ARI", nil, nil, "asterisk", Bad, "404"},
		{"no JSON", map[string]string{"/ari/asterisk/info": "<html>"}, nil, "asterisk", Bad, "does not read"},
		{"no modules", map[string]string{"/ari/asterisk/modules": `[{"name":"chan_pjsip.so","status":"Not Running"}]`}, nil, "asterisk_modules", Bad, "chan_pjsip"},
		{"own dialplan", well, nil, "asterisk_app", Warn, "no variable GATEWAY"},
		{"nobody plays", well, nil, "asterisk_sounds", Bad, "events"},
		{"in clear", nil, func(c *asterisk.Config) { c.URL = "http://192.0.2.1:8088/ari" }, "asterisk_way", Bad, "in clear"},
		{"by TLS", nil, func(c *asterisk.Config) { c.URL = "https://192.0.2.1:8089/ari" }, "asterisk_way", Well, "TLS"},
		{"no password", nil, func(c *asterisk.Config) { c.PasswordFile = "" }, "asterisk_way", Bad, "no password"},
		{"no file", nil, func(c *asterisk.Config) { c.PasswordFile = "/nowhere" }, "asterisk_way", Bad, "/nowhere"},
		{"no authority", nil, func(c *asterisk.Config) { c.CAFile = "/nowhere" }, "asterisk", Bad, "/nowhere"},
		{"open file", nil, func(c *asterisk.Config) {
			if err := os.Chmod(c.PasswordFile, 0o644); err != nil {
				t.Error(err)
			}
		}, "asterisk_way", Bad, "others"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if text, ok := c.answers[r.URL.Path]; ok {
					_, _ = w.Write([]byte(text))
					return
				}
				http.Error(w, `{"message":"Resource not found"}`, http.StatusNotFound)
			}))
			defer srv.Close()
			cfg := asterisk.Defaults()
			cfg.URL, cfg.PasswordFile, cfg.SoundsDir = srv.URL+"/ari", passwordFile(t, "x"), t.TempDir()
			if c.edit != nil {
				c.edit(&cfg)
			}
			f := look(t, AsteriskInputs{Config: cfg, Node: "n1"})[c.code]
			if f.Level != c.level || !strings.Contains(f.Detail, c.said) || (f.Mend == "") != (f.Level == Well) {
				t.Errorf("%s: %q, mend: %q", f.Level, f.Detail, f.Mend)
			}
		})
	}
	for code, f := range look(t, AsteriskInputs{Config: asterisk.Config{URL: nobody(t)}}) {
		if f.Level == Well {
			t.Errorf("%s is well without an Asterisk", code)
		}
	}
	skipped := Examine(t.Context(), Inputs{})
	if i := slices.IndexFunc(skipped, func(f Finding) bool { return strings.HasPrefix(f.Code, "asterisk") && f.Level != Skipped }); i >= 0 {
		t.Errorf("with the backend sip: %+v", skipped[i])
	}
	if n := len(slices.Collect(maps.Keys(look(t, AsteriskInputs{})))); n != 7 {
		t.Errorf("%d findings", n)
	}
}
