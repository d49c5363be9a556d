package dialog

import (
	"context"

	"github.com/emiago/sipgo/sip"
)

// Info sends an INFO in a confirmed call (RFC 6086) and returns when it was answered. A refusal is a
// *call.DialError.
func (c *Call) Info(ctx context.Context, contentType string, body []byte) error {
	res, err := c.exchange(ctx, sip.INFO, func(req *sip.Request) {
		req.AppendHeader(sip.NewHeader("Content-Type", contentType))
		req.SetBody(body)
	})
	switch {
	case err != nil:
		return dialError(err)
	case !res.IsSuccess():
		return refusalError(res)
	}
	return nil
}
