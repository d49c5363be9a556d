package siptest

import (
	"fmt"
	"strings"
)

// Call is one dialog of a phone.
type Call struct {
	Phone  *Phone
	ID     string
	Local  string // our From or To value, with the tag
	Remote string // theirs; with the tag as soon as it is known
	Target string // their Contact
	CSeq   uint32 // of our last request
	Routes []string

	invite string // our INVITE, as sent
	branch string
}

// Invite sends an INVITE to a number and returns its call.
func (p *Phone) Invite(number, sdp string, extra ...string) *Call {
	p.t.Helper()
	c := &Call{
		Phone:  p,
		ID:     p.Name("call"),
		Local:  fmt.Sprintf("<sip:%s@%s>;tag=%s", p.user, p.Addr(), p.Name("tag")),
		Remote: fmt.Sprintf("<sip:%s@%s>", number, p.peer),
		Target: fmt.Sprintf("sip:%s@%s", number, p.peer),
		CSeq:   1,
		branch: p.Name("z9hG4bK"),
	}
	c.invite = c.Text("INVITE", c.CSeq, c.branch, sdp, extra...)
	p.Send(c.invite)
	return c
}

// Resend sends the INVITE again, as it was.
func (c *Call) Resend() { c.Phone.Send(c.invite) }

// AwaitCall waits for an INVITE and returns it with its call; Answer it with Respond.
func (p *Phone) AwaitCall() (*Call, Message) {
	p.t.Helper()
	m := p.Await("INVITE")
	return &Call{
		Phone:  p,
		ID:     m.Get("Call-ID"),
		Local:  m.Get("To") + ";tag=" + p.Name("tag"),
		Remote: m.Get("From"),
		Target: m.Contact(),
		CSeq:   100,
		Routes: m.All("Record-Route"),
	}, m
}

// Text is a request of the dialog.
func (c *Call) Text(method string, cseq uint32, branch, body string, extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\n", method, c.Target)
	fmt.Fprintf(&b, "Via: SIP/2.0/UDP %s;branch=%s;rport\n", c.Phone.Addr(), branch)
	for _, r := range c.Routes {
		fmt.Fprintf(&b, "Route: %s\n", r)
	}
	fmt.Fprintf(&b, "Max-Forwards: 70\nFrom: %s\nTo: %s\nCall-ID: %s\nCSeq: %d %s\nContact: <%s>\n",
		c.Local, c.Remote, c.ID, cseq, method, c.Phone.Contact())
	writeTail(&b, body, extra)
	return b.String()
}

// Learn takes the dialog's far end from a response.
func (c *Call) Learn(res Message) {
	c.Remote = res.Get("To")
	if t := res.Contact(); t != "" {
		c.Target = t
	}
}

// Respond answers a request of the dialog.
func (c *Call) Respond(req Message, status int, body string, extra ...string) {
	c.Phone.t.Helper()
	c.Phone.Respond(req, status, param(c.Local, "tag"), body, extra...)
}

// Answered waits for the 200 to the INVITE and acknowledges it.
func (c *Call) Answered() Message {
	c.Phone.t.Helper()
	res := c.Phone.Await("200 INVITE")
	c.Ack(res, "")
	return res
}

// Ack acknowledges a final response to our last INVITE: in the transaction of a refusal, in one of its
// own for a 2xx (RFC 3261 sections 17.1.1.3 and 13.2.2.4).
func (c *Call) Ack(res Message, body string) {
	c.Phone.t.Helper()
	n, _ := res.CSeq()
	if res.Status() >= 300 {
		target, remote := c.Target, c.Remote
		c.Remote = res.Get("To")
		c.Phone.Send(c.Text("ACK", n, res.Branch(), ""))
		c.Target, c.Remote = target, remote
		return
	}
	c.Learn(res)
	c.Phone.Send(c.Text("ACK", n, c.Phone.Name("z9hG4bK"), body))
}

// Cancel cancels the INVITE.
func (c *Call) Cancel() {
	c.Phone.t.Helper()
	c.Phone.Send(c.Text("CANCEL", c.CSeq, c.branch, ""))
}

// Request sends a request in the dialog and returns its text.
func (c *Call) Request(method, body string, extra ...string) string {
	c.Phone.t.Helper()
	c.CSeq++
	text := c.Text(method, c.CSeq, c.Phone.Name("z9hG4bK"), body, extra...)
	c.Phone.Send(text)
	return text
}

// Bye sends BYE and waits for its answer.
func (c *Call) Bye() Message {
	c.Phone.t.Helper()
	c.Request("BYE", "")
	return c.Phone.Await("200 BYE")
}

// InfoDigit sends one key by INFO (application/dtmf-relay) and does not wait.
func (c *Call) InfoDigit(key byte) {
	c.Phone.t.Helper()
	c.Request("INFO", fmt.Sprintf("Signal=%c\r\nDuration=160\r\n", key), "Content-Type: application/dtmf-relay")
}
