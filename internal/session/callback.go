package session

import (
	"context"

	"github.com/oklog/ulid/v2"
)

// CallBack calls a caller back who is owed it: the person's phone rings first, then the caller's. It returns
// the identity of the call once task and agent are reserved; the call goes on by itself. It fails as
// [CallBacks.TakeCallBack] does, with ErrCallBackOff and with ErrCallBacksFull.
func (m *Manager) CallBack(ctx context.Context, task, person string) (callID string, err error) {
	if m.CallBacks == nil || m.cfg.CallBack.Trunk == "" {
		return "", ErrCallBackOff
	}
	callID = ulid.Make().String()
	if _, err := m.CallBacks.TakeCallBack(ctx, task, person, callID); err != nil {
		return "", err
	}
	return callID, nil
}
