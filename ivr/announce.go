package ivr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
)

// Announcement is what callers are told of an event (Art. 13), until it expires.
type Announcement struct {
	Topic   string    `yaml:"topic"`   // of the event; it goes to intake with the call
	Scope   []string  `yaml:"scope"`   // called numbers; none is every number
	Expires time.Time `yaml:"expires"` // at this instant it is no longer said
	Author  string    `yaml:"author"`  // who answers for it
	Say     []string  `yaml:"say"`     // prompts
}

// maxEvents bounds a file of announcements, in bytes; maxAnnouncements those in it.
const (
	maxEvents        = 64 << 10
	maxAnnouncements = 20
)

// ParseAnnouncements reads a file of announcements: a list under the key announcements.
func ParseAnnouncements(src []byte, prompts Catalogue) (list []Announcement, err error) {
	defer tame(&err)
	if len(src) > maxEvents {
		return nil, fmt.Errorf("%d bytes of announcements; at most %d", len(src), maxEvents)
	}
	var file struct {
		Announcements []Announcement `yaml:"announcements"`
	}
	if err := yaml.UnmarshalWithOptions(src, &file, yaml.Strict()); err != nil {
		return nil, err
	}
	if len(file.Announcements) > maxAnnouncements {
		return nil, fmt.Errorf("%d announcements; at most %d", len(file.Announcements), maxAnnouncements)
	}
	for i, a := range file.Announcements {
		switch {
		case a.Topic == "":
			return nil, fmt.Errorf("announcements[%d].topic: none; write a word such as typhoon", i)
		case a.Expires.IsZero():
			return nil, fmt.Errorf("announcements[%d].expires: none; write a time such as 2026-08-01T12:00:00+08:00", i)
		case a.Author == "":
			return nil, fmt.Errorf("announcements[%d].author: none; write who answers for it", i)
		case len(a.Say) == 0:
			return nil, fmt.Errorf("announcements[%d].say: nothing; write prompts", i)
		}
		for j, part := range a.Say {
			if err := prompts.Has(part); err != nil {
				return nil, fmt.Errorf("announcements[%d].say[%d]: %w; %s", i, j, err, choose(part, prompts.Names()))
			}
		}
	}
	return file.Announcements, nil
}

// announce says what is in force. The file is read for each call, so that a change is heard at once;
// a file that is not there announces nothing, and one that is wrong is counted and skipped: news must
// not stand between a caller and a person.
func (w *walk) announce(ctx context.Context, n *Node) error {
	e := w.engine
	list, err := readAnnouncements(e.files, n.File, e.prompts)
	if err != nil {
		e.metrics.faults.WithLabelValues(faultEvents).Inc()
		e.log.Warn("announcements are skipped", "file", n.File, "error", err)
		return nil
	}
	var topics []string
	for _, a := range list {
		if !w.at.Now.Before(a.Expires) || len(a.Scope) > 0 && !slices.Contains(a.Scope, w.at.Called) {
			continue
		}
		topics = append(topics, a.Topic)
		if err := w.say(ctx, a.Say...); err != nil {
			return err
		}
	}
	if len(topics) > 0 {
		w.data[n.Name] = strings.Join(topics, ",")
	}
	return nil
}

func readAnnouncements(files fs.FS, name string, prompts Catalogue) ([]Announcement, error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	src, err := io.ReadAll(io.LimitReader(f, maxEvents+1))
	if err != nil {
		return nil, err
	}
	return ParseAnnouncements(src, prompts)
}
