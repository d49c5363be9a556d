package prompt

import "github.com/hotline12345/gateway/internal/call/g711"

// ALaw encodes 16-bit linear samples as A-law.
func ALaw(pcm []int16) []byte {
	out := make([]byte, len(pcm))
	for i, s := range pcm {
		out[i] = g711.EncodeALaw(s)
	}
	return out
}

// linear decodes A-law to 16-bit linear samples.
func linear(alaw []byte) []int16 {
	out := make([]int16, len(alaw))
	for i, b := range alaw {
		out[i] = g711.ALawToLinear[b]
	}
	return out
}

// muLaw turns A-law into µ-law.
func muLaw(alaw []byte) []byte {
	out := make([]byte, len(alaw))
	for i, b := range alaw {
		out[i] = g711.ALawToULaw[b]
	}
	return out
}
