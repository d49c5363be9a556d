package prompt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hotline12345/gateway/internal/call/g711"
)

// MaxLength is the longest prompt.
const MaxLength = 120 * time.Second

// maxFile bounds a file that is read: MaxLength of 16-bit PCM, with room for headers.
const maxFile = 2*8000*int(MaxLength/time.Second) + 64<<10

// The format tags of a WAV file (RFC 2361).
const (
	wavePCM        = 0x0001
	waveALaw       = 0x0006
	waveMuLaw      = 0x0007
	waveExtensible = 0xfffe
)

// ParseWAV makes A-law of a WAV file: 8 kHz, mono, 16-bit PCM, A-law or µ-law.
func ParseWAV(src []byte) ([]byte, error) {
	if len(src) < 12 || string(src[:4]) != "RIFF" || string(src[8:12]) != "WAVE" {
		return nil, errors.New("not a WAV file")
	}
	format := 0
	for rest := src[12:]; len(rest) >= 8; {
		name, size := string(rest[:4]), int(binary.LittleEndian.Uint32(rest[4:8]))
		body := rest[8:]
		if size > len(body) {
			if name != "data" {
				return nil, fmt.Errorf("the chunk %q is cut short", name)
			}
			size = len(body) // what a writer to a pipe leaves: the length was not known
		}
		switch name {
		case "fmt ":
			var err error
			if format, err = waveFormat(body[:size]); err != nil {
				return nil, err
			}
		case "data":
			return samples(format, body[:size])
		}
		rest = body[min(size+size&1, len(body)):] // chunks are padded to even lengths
	}
	return nil, errors.New("the WAV file has no data")
}

func waveFormat(b []byte) (int, error) {
	if len(b) < 16 {
		return 0, errors.New("the WAV file's format is cut short")
	}
	tag := int(binary.LittleEndian.Uint16(b))
	channels := binary.LittleEndian.Uint16(b[2:])
	rate := binary.LittleEndian.Uint32(b[4:])
	bits := binary.LittleEndian.Uint16(b[14:])
	if tag == waveExtensible && len(b) >= 26 {
		tag = int(binary.LittleEndian.Uint16(b[24:])) // the subformat begins with the plain tag
	}
	switch {
	case channels != 1:
		return 0, fmt.Errorf("%d channels; make it mono: sox IN -c 1 OUT", channels)
	case rate != 8000:
		return 0, fmt.Errorf("%d samples a second; make it 8000: sox IN -r 8000 OUT", rate)
	case tag == wavePCM && bits == 16, tag == waveALaw && bits == 8, tag == waveMuLaw && bits == 8:
		return tag, nil
	}
	return 0, fmt.Errorf("WAV format %d of %d bits; make it 16-bit PCM: sox IN -e signed -b 16 OUT", tag, bits)
}

func samples(format int, data []byte) ([]byte, error) {
	switch format {
	case wavePCM:
		pcm := make([]int16, len(data)/2)
		for i := range pcm {
			pcm[i] = int16(binary.LittleEndian.Uint16(data[2*i:])) // #nosec G115 -- two's complement
		}
		return ALaw(pcm), nil
	case waveALaw:
		return append([]byte(nil), data...), nil
	case waveMuLaw:
		alaw := make([]byte, len(data))
		for i, b := range data {
			alaw[i] = g711.ULawToALaw[b]
		}
		return alaw, nil
	}
	return nil, errors.New("the WAV file's data comes before its format")
}

// The bounds of loudness, in dB below full scale; built-in voices speak at -15 to -25.
const (
	faintest = -40
	loudest  = -6
)

// loudness is the mean level of the frames that sound, in dB below full scale; -Inf for silence.
func loudness(alaw []byte) float64 {
	const frame, floor = 160, 100 // 20 ms; quieter than about -50 dB is a pause
	var power float64
	sounding := 0
	for pcm := linear(alaw); len(pcm) >= frame; pcm = pcm[frame:] {
		var sum float64
		for _, s := range pcm[:frame] {
			sum += float64(s) * float64(s)
		}
		if sum/frame > floor*floor {
			power += sum / frame
			sounding++
		}
	}
	if sounding == 0 {
		return math.Inf(-1)
	}
	return 10 * math.Log10(power/float64(sounding)/(32768*32768))
}

// check tells what is wrong with a prompt that an operator brought.
func check(alaw []byte) error {
	length := time.Duration(len(alaw)) * time.Second / 8000
	level := loudness(alaw)
	switch {
	case length > MaxLength:
		return fmt.Errorf("%s long; make it at most %s", length.Round(time.Second), MaxLength)
	case math.IsInf(level, -1):
		return errors.New("nothing but silence; record it again")
	case level < faintest:
		return fmt.Errorf("too faint (%.0f dB below full scale); make it louder: sox IN OUT gain -n -6", -level)
	case level > loudest:
		return fmt.Errorf("too loud (%.0f dB below full scale); make it quieter: sox IN OUT gain -n -6", -level)
	}
	return nil
}
