// Package recording keeps calls: sealed while they run, whole after a kill, deleted by their key.
//
// # On the disk
//
// Each recording has a directory of its own, named by the day (UTC) of its identity, a ULID:
//
//	<dir>/2026/03/02/01JNB…/audio.hlr      the sealed audio, append-only; the very bytes handed over
//	                        key.age        the recording's private key, sealed to the agency
//	                        manifest.json  facts, marks, segments, hashes; never personal data
//	                        hold           present while a legal hold forbids deletion
//	<dir>/open/01JNB…                      a marker: not yet settled with case intake
//
// # Keys
//
// A recording has an X25519 key pair of its own (age-encryption.org/v1), made at its start. The
// private half is forgotten at once, but for key.age: the text AGE-SECRET-KEY-1…, encrypted with age
// to the agency's recipients and to the listening key if there is one. Everything of the call that
// is personal is sealed to the public half. The process itself can open no more of a running call than the
// half minute whose file key it still has, and after the call nothing. Destroying key.age therefore deletes all of it, on the
// disk and in every backup that leaves key.age out.
//
// # The sealed file, version 1
//
// All integers are big-endian. The file begins with 24 bytes:
//
//	0   8   "HOTLREC1"
//	8   16  the recording's identity, a ULID in binary
//
// Frames follow to the end of the file, each written by one write:
//
//	0   1   type: 'A' audio, 'M' mark
//	1   4   n, the length of the body, at most 65,536
//	5   8   start: samples from the start of the recording, 8,000 a second
//	13  4   samples: how many the body holds on each channel; 0 for a mark
//	17  32  SHA-256 of the audio from the file's first frame to the end of this one (see below)
//	49  n   the body
//	.   4   CRC-32C of all that stands before it in the frame
//
// A body of type 'A' is an age file encrypted to the recording's key; up to 20 that follow one another have
// the same header, and so the same file key, each with a nonce of its own. Inside it:
//
//	0   16  the recording's identity
//	16  4   the number of this audio frame, from 0
//	20  8   start, as outside
//	28  2×samples   G.711 A-law (ITU-T G.711, even bits inverted), caller and heard audio by turns:
//	                the caller (left), what the caller heard (right)
//
// A body of type 'M' is a JSON object in clear: {"at_ms":…, "kind":…, "note":…}.
//
// The audio of a recording begins at sample 0. Samples that no frame holds are silence (0xD5). The
// hash in a frame, and sha256_audio in the manifest, are over that audio, channels by turns, silence
// included. sha256_sealed is over the file as it lies. A file that ends within a frame, or whose last
// frame has a wrong CRC, was cut by a kill or a power loss: all before that frame is good.
//
// # What is lost
//
// An audio frame is at most 1.5 s long and is written at most 0.5 s after its end, so a killed
// process loses at most 2 s. All files are synced once a second, so a power loss costs one second more.
package recording
