package console

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hotline12345/gateway/internal/staff"
)

// maxBody bounds what a form or an API request may send. Facts of many requests fit in it.
const maxBody = 256 << 10

// Who may use a route.
var (
	everyone   []staff.Role // logged in or not
	agents     = []staff.Role{staff.Agent}
	watchers   = []staff.Role{staff.Supervisor, staff.Manager, staff.Auditor, staff.Admin}
	leaders    = []staff.Role{staff.Supervisor, staff.Manager}
	keepers    = []staff.Role{staff.Manager, staff.Admin} // of the gateways
	agentsToo  = []staff.Role{staff.Agent, staff.Supervisor, staff.Manager}
	allMembers = staff.Roles()
)

// route is a line of the route table. An operation makes it part of the API.
type route struct {
	method, path string
	roles        []staff.Role
	serve        func(http.ResponseWriter, *visit)
	op           *operation
}

// visit is a request with who makes it. The person is empty on a route for everyone.
type visit struct {
	*http.Request
	person staff.Person
	token  string
	lang   string
	htmx   bool // the answer goes into a part of the page, not in its place
}

// source is the peer's address, for the audit log.
func (v *visit) source() string {
	host, _, err := net.SplitHostPort(v.RemoteAddr)
	if err != nil {
		return v.RemoteAddr
	}
	return host
}

func (c *Console) routeTable() []route {
	return slices.Concat([]route{
		{"GET", "/{$}", allMembers, c.home, nil},
		{"GET", "/login", everyone, c.loginPage, nil},
		{"POST", "/login", everyone, c.login, nil},
		{"POST", "/logout", allMembers, c.logout, nil},
		{"POST", "/language", everyone, c.setLanguage, nil},

		{"GET", "/live", watchers, c.livePage, nil},
		{"GET", "/live/stream", watchers, c.liveStream, nil},
		{"GET", "/calls/{id}", watchers, c.callPage, nil},
		{"POST", "/calls/{id}/hangup", leaders, c.forceHangup, nil},
		{"POST", "/agents/{id}/pause", leaders, c.forcePause, nil},
		{"POST", "/agents/{id}/logout", leaders, c.forceLogout, nil},

		{"GET", "/agent", agents, c.agentPage, nil},
		{"GET", "/agent/stream", agents, c.agentStream, nil},
		{"GET", "/agent/facts", agents, c.factsPart, nil},
		{"POST", "/agent/login", agents, c.agentLogin, nil},
		{"POST", "/agent/logout", agents, c.agentLogout, nil},
		{"POST", "/agent/ready", agents, c.agentReady, nil},
		{"POST", "/agent/pause", agents, c.agentPause, nil},
		{"POST", "/agent/calls/{id}/facts", agents, c.saveFacts, nil},
		{"POST", "/agent/calls/{id}/done", agents, c.finishWrapUp, nil},
		{"POST", "/agent/calls/{id}/emergency", agents, c.emergency, nil},
		{"POST", "/agent/calls/{id}/hangup", agents, c.agentHangup, nil},
		{"POST", "/agent/calls/{id}/hold", agents, c.hold, nil},
		{"POST", "/agent/calls/{id}/resume", agents, c.resume, nil},
	}, c.callBackTable(), c.nodeTable(), c.abuseTable(), c.apiTable())
}

// gate lets through whoever has one of the route's roles.
func (c *Console) gate(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v := &visit{Request: r, lang: language(r), htmx: r.Header.Get("HX-Request") == "true"}
		known := c.deps.Staff.Session
		if v.token = sessionToken(r); rt.op != nil {
			known, v.token = c.deps.Staff.Token, bearer(r)
		}
		err := staff.ErrNoSession
		if v.token != "" {
			v.person, err = known(r.Context(), v.token)
		}
		switch {
		case rt.roles == nil || err == nil && v.person.Has(rt.roles...):
			rt.serve(w, v)
		case !errors.Is(err, staff.ErrNoSession) && err != nil:
			c.refuse(w, v, rt, err)
		case rt.op != nil && v.person.ID == "":
			w.Header().Set("WWW-Authenticate", `Bearer realm="hotline"`)
			c.problem(w, http.StatusUnauthorized, "send a valid token: Authorization: Bearer ...")
		case rt.op != nil:
			c.problem(w, http.StatusForbidden, "your roles do not allow this")
		case v.person.ID == "":
			toLogin(w, v)
		default:
			c.message(w, v, http.StatusForbidden, "error.forbidden")
		}
	})
}

// refuse says that it cannot be known who a visitor is.
func (c *Console) refuse(w http.ResponseWriter, v *visit, rt route, err error) {
	if rt.op != nil {
		c.json(w, nil, err)
		return
	}
	c.fail(w, v, err)
}

// toLogin sends a visitor to the log-in, and back to a page they could get.
func toLogin(w http.ResponseWriter, v *visit) {
	to := "/login"
	if v.Method == http.MethodGet && !v.htmx {
		to += "?next=" + url.QueryEscape(v.URL.Path)
	}
	redirect(w, v, to)
}

// redirect answers a form with where to go; htmx is told to leave the page.
func redirect(w http.ResponseWriter, v *visit, to string) {
	if v.htmx {
		w.Header().Set("HX-Redirect", to)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	http.Redirect(w, v.Request, to, http.StatusSeeOther)
}

// localPath is a path on this site, or "/": a log-in must not lead to another site.
func localPath(s string) string {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n") {
		return "/"
	}
	return s
}

const (
	sessionCookie  = "hotline_session"
	languageCookie = "hotline_language"
	languageLife   = 365 * 24 * time.Hour
)

func sessionToken(r *http.Request) string {
	k, err := r.Cookie(sessionCookie)
	if err != nil {
		return ""
	}
	return k.Value
}

func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") { // RFC 9110 section 11.1: the scheme ignores case
		return ""
	}
	return strings.TrimSpace(token)
}

func (c *Console) cookie(name, value string, life time.Duration) *http.Cookie {
	//nolint:gosec // whether there is TLS before the console is for the configuration to say
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()), HttpOnly: true,
		Secure: c.cfg.SecureCookies, SameSite: http.SameSiteStrictMode}
}

func (c *Console) home(w http.ResponseWriter, v *visit) {
	if v.person.Has(watchers...) {
		redirect(w, v, "/live")
		return
	}
	redirect(w, v, "/agent")
}

// loginForm is what the log-in page shows.
type loginForm struct {
	ID, Next, Error string // Error is a text's key
}

func (c *Console) loginPage(w http.ResponseWriter, v *visit) {
	if v.person.ID != "" {
		redirect(w, v, "/")
		return
	}
	c.page(w, v, http.StatusOK, "login", loginForm{Next: localPath(v.FormValue("next"))})
}

func (c *Console) login(w http.ResponseWriter, v *visit) {
	form := loginForm{ID: v.PostFormValue("id"), Next: localPath(v.PostFormValue("next"))}
	s, err := c.deps.Staff.Login(v.Context(), form.ID, v.PostFormValue("password"), v.source())
	status := http.StatusUnauthorized
	switch {
	case err == nil:
		c.metrics.logins.WithLabelValues("ok").Inc()
		http.SetCookie(w, c.cookie(sessionCookie, s.Token, 0)) // ends with the browser; staff ends it sooner
		if _, err := v.Cookie(languageCookie); err != nil && slices.Contains(languages, s.Person.Language) {
			http.SetCookie(w, c.cookie(languageCookie, s.Person.Language, languageLife))
		}
		redirect(w, v, form.Next)
		return
	case errors.Is(err, staff.ErrLogin):
		c.metrics.logins.WithLabelValues("wrong").Inc()
		form.Error = "login.wrong"
	case errors.Is(err, staff.ErrThrottled):
		c.metrics.logins.WithLabelValues("limited").Inc()
		form.Error, status = "login.limited", http.StatusTooManyRequests
	default:
		c.metrics.logins.WithLabelValues("failed").Inc()
		c.log.Error("log-in failed", slog.Any("error", err))
		form.Error, status = "error.internal", http.StatusInternalServerError
	}
	c.page(w, v, status, "login", form)
}

func (c *Console) logout(w http.ResponseWriter, v *visit) {
	if err := c.deps.Staff.Logout(v.Context(), v.token); err != nil {
		c.fail(w, v, err)
		return
	}
	http.SetCookie(w, c.cookie(sessionCookie, "", -time.Second))
	redirect(w, v, "/login")
}

func (c *Console) setLanguage(w http.ResponseWriter, v *visit) {
	if lang := v.PostFormValue("language"); slices.Contains(languages, lang) {
		http.SetCookie(w, c.cookie(languageCookie, lang, languageLife))
	}
	redirect(w, v, localPath(v.PostFormValue("back")))
}
