package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/hotline12345/gateway/internal/asterisk"
	"github.com/hotline12345/gateway/internal/call"
)

// AsteriskInputs is what the doctor looks at of an Asterisk that the gateway drives.
type AsteriskInputs struct {
	Config asterisk.Config
	Node   string
	Prompt func() (*call.Clip, error) // one that Asterisk is to play
}

const notDriven = "the backend is sip"

// atAsterisk asks an Asterisk. Without one the examination is skipped; an Asterisk that does not answer is told of by
// the examination asterisk alone.
func atAsterisk(ask func(ctx context.Context, i *asterisk.Inspector, in AsteriskInputs) (Level, string, string, error)) func(context.Context, Inputs) (Level, string, string) {
	return func(ctx context.Context, in Inputs) (Level, string, string) {
		if in.Asterisk == nil {
			return Skipped, notDriven, ""
		}
		i, err := asterisk.Inspect(in.Asterisk.Config, in.Asterisk.Node)
		if err != nil {
			return Bad, err.Error(), "Put the file where asterisk.ca_file or asterisk.password_file says, readable by the gateway's user."
		}
		defer i.Close()
		level, detail, mend, err := ask(ctx, i, *in.Asterisk)
		if err != nil {
			return Warn, err.Error(), "Look at the finding asterisk."
		}
		return level, detail, mend
	}
}

// majors are the versions of Asterisk that are known to do.
var majors = []string{"18", "20", "22"}

var majorOf = regexp.MustCompile(`\d+`)

// lookAsterisk looks whether Asterisk lets the gateway in, and whether it is one that is known.
func lookAsterisk(ctx context.Context, i *asterisk.Inspector, in AsteriskInputs) (Level, string, string, error) {
	version, err := i.Version(ctx)
	refused, answered := errors.AsType[*asterisk.StatusError](err)
	switch {
	case answered && refused.Status == http.StatusUnauthorized:
		return Bad, err.Error(), fmt.Sprintf("Let ari.conf have [%s] with type = user and the password that asterisk.password_file holds, then: module reload res_ari.so", in.Config.Username), nil
	case answered && refused.Status == http.StatusNotFound:
		return Bad, err.Error(), "Set enabled = yes in ari.conf and load res_ari.so and res_ari_asterisk.so; the path of asterisk.url is /ari behind the prefix of http.conf.", nil
	case err != nil:
		return Bad, err.Error(), "Start Asterisk; set enabled, bindaddr and bindport (or tlsenable and tlsbindaddr) in http.conf to what asterisk.url says, and asterisk.ca_file to its certificate's authority.", nil
	}
	major := majorOf.FindString(version)
	if !slices.Contains(majors, major) {
		return Warn, "Asterisk " + version, "Run Asterisk " + strings.Join(majors, ", ") + ": the gateway was not tried with another.", nil
	}
	return Well, "Asterisk " + version, "", nil
}

func lookModules(ctx context.Context, i *asterisk.Inspector, _ AsteriskInputs) (Level, string, string, error) {
	missing, err := i.Missing(ctx)
	if err != nil || len(missing) == 0 {
		return Well, "", "", err
	}
	return Bad, "not loaded: " + strings.Join(missing, ", "),
		"Put `load = " + missing[0] + ".so` and so on into modules.conf, take away any noload of them, and restart Asterisk.", nil
}

func lookRights(ctx context.Context, i *asterisk.Inspector, in AsteriskInputs) (Level, string, string, error) {
	may, err := i.MayWrite(ctx)
	if err != nil || may {
		return Well, in.Config.Username, "", err
	}
	return Bad, in.Config.Username + " may only read", fmt.Sprintf("Set read_only = no for [%s] in ari.conf, then: module reload res_ari.so", in.Config.Username), nil
}

// lookApplication looks whether the calls of the dialplan come to this gateway.
func lookApplication(ctx context.Context, i *asterisk.Inspector, _ AsteriskInputs) (Level, string, string, error) {
	name, connected, dialplan, err := i.Application(ctx)
	if err != nil {
		return Warn, "", "", err
	}
	state := name + " is not connected, as the gateway does not run"
	if connected {
		state = name + " is connected"
	}
	mend := fmt.Sprintf("Set GATEWAY = %s (or SECOND) under [globals] of extensions.conf, then: dialplan reload; or asterisk.application to what the dialplan names.", name)
	switch {
	case len(dialplan) == 0:
		return Warn, state + "; the dialplan has no variable GATEWAY", "Paste deploy/asterisk/extensions.conf, or make sure that your own dialplan has Stasis(" + name + ",trunk,${EXTEN},${CALLERID(num-pres)}).", nil
	case !slices.Contains(dialplan, name):
		return Bad, state + "; the dialplan sends calls to " + strings.Join(dialplan, ", "), mend, nil
	}
	return Well, state, "", nil
}

// lookSounds has Asterisk play a prompt to here.
func lookSounds(ctx context.Context, i *asterisk.Inspector, in AsteriskInputs) (Level, string, string, error) {
	clip, err := in.Prompt()
	if err != nil {
		return Warn, err.Error(), "Look at the finding prompts.", nil
	}
	err = i.Hear(ctx, clip)
	_, answered := errors.AsType[*asterisk.StatusError](err)
	switch {
	case err == nil:
		return Well, in.Config.SoundsDir + "; a prompt was played there and heard here", "", nil
	case errors.Is(err, os.ErrPermission), errors.Is(err, os.ErrNotExist):
		return Bad, err.Error(), fmt.Sprintf("Let the gateway's user write there: install -d -m 755 -o hotline %s", in.Config.SoundsDir), nil
	case errors.Is(err, asterisk.ErrUnread):
		return Bad, err.Error(), "Let asterisk.sounds_path be the directory asterisk.sounds_dir as Asterisk sees it, every directory above it open to Asterisk's user (chmod o+x), and format_pcm.so loaded.", nil
	case errors.Is(err, asterisk.ErrUnheard):
		return Bad, err.Error(), fmt.Sprintf("Let UDP from Asterisk reach asterisk.media_addr %s, on any port.", in.Config.MediaAddr), nil
	case answered:
		return Bad, err.Error(), "Look at the findings asterisk_modules and asterisk_user.", nil
	}
	return Bad, err.Error(), "Look at the finding asterisk; asterisk.media_addr must be an address of this machine.", nil
}

// examplePassword stands in the files that the documentation tells to paste.
const examplePassword = "change-me"

// lookWay looks at the way to Asterisk, on which the user's password goes with every request.
func lookWay(_ context.Context, in Inputs) (Level, string, string) {
	if in.Asterisk == nil {
		return Skipped, notDriven, ""
	}
	cfg := in.Asterisk.Config
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return Bad, err.Error(), "Write asterisk.url as https://10.0.0.5:8089/ari."
	}
	if u.Scheme != "https" && !loopback(u.Hostname()) {
		return Bad, "the password and the callers' numbers go to " + u.Host + " in clear",
			"Set tlsenable, tlsbindaddr, tlscertfile and tlsprivatekey in http.conf, and asterisk.url to https://…:8089/ari with asterisk.ca_file."
	}
	if cfg.PasswordFile == "" {
		return Bad, "the user has no password", "Write the password of ari.conf into a file of mode 600, and its path to asterisk.password_file."
	}
	info, err := os.Stat(cfg.PasswordFile)
	if err != nil {
		return Bad, err.Error(), "Write the password of ari.conf into asterisk.password_file, mode 600."
	}
	password, err := os.ReadFile(cfg.PasswordFile)
	switch {
	case err != nil:
		return Bad, err.Error(), "Let the gateway's user own the file: chown hotline " + cfg.PasswordFile
	case strings.TrimSpace(string(password)) == examplePassword:
		return Warn, "the password is the example's", "Write another into ari.conf and into " + cfg.PasswordFile + ", and one for each phone into pjsip.conf."
	case info.Mode().Perm()&0o077 != 0:
		return Bad, fmt.Sprintf("%s may be used by others than its owner (%s)", cfg.PasswordFile, info.Mode().Perm()),
			"chmod 600 " + cfg.PasswordFile + ": who reads it can place calls."
	}
	if u.Scheme == "https" {
		return Well, "TLS to " + u.Host, ""
	}
	return Well, u.Host + ", on this machine", ""
}

func loopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

// lookTrunks looks where Asterisk sends the calls of the trunks.
func lookTrunks(ctx context.Context, i *asterisk.Inspector, in AsteriskInputs) (Level, string, string, error) {
	if len(in.Config.Trunks) == 0 {
		return Bad, "there are none", "Put the endpoint that the carrier's calls come by under asterisk.trunks: calls of others are refused.", nil
	}
	at, err := i.Trunks(ctx)
	if err != nil {
		return Warn, "", "", err
	}
	var found, without []string
	for _, t := range in.Config.Trunks {
		if at[t.Name] == "" {
			without = append(without, t.Name)
			continue
		}
		found = append(found, t.Name+" to "+at[t.Name])
	}
	if len(without) > 0 {
		return Warn, "no contact: " + strings.Join(without, ", "), "Give the trunk's endpoint an aor with a contact in pjsip.conf, or see that it is registered: nobody in danger can be led out by it else.", nil
	}
	return Well, strings.Join(found, ", "), "", nil
}
