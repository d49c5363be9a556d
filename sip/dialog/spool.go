package dialog

// Spool keeps confirmed dialogs over a kill of the process.
type Spool interface {
	Save(id string, d DialogState) error
	Delete(id string) error
	All() (map[string]DialogState, error)
}

// DialogState is enough of a confirmed dialog to end it (RFC 3261 section 12.2.1.1).
type DialogState struct {
	Listener  string   `json:"listener"` // transport and address, e.g. "udp 127.0.0.1:5060"
	CallID    string   `json:"call_id"`
	Local     string   `json:"local"`  // our From or To value, with our tag
	Remote    string   `json:"remote"` // theirs
	Target    string   `json:"target"` // their Contact
	Routes    []string `json:"routes,omitempty"`
	Peer      string   `json:"peer"`
	LocalCSeq uint32   `json:"local_cseq"`
}
