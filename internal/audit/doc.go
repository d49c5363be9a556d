// Package audit is the tamper-evident log: who did what to whom, and when.
//
// A node writes one chain of JSON lines. Each line carries the hash of the one before it and ends with
// the SHA-256 of its own bytes, so a line that was changed, removed or put in breaks the chain at a
// place that [Verify] names. An entry is on disk (fsync) when [Log.Append] returns; entries that arrive
// together share one fsync. Files are rotated by size and by day, and the chain goes on across them.
//
// A chain cannot show that its end was cut off: copy [Log.Head] to a second keeper now and then, and
// hand it to [Verify].
//
// An entry holds no personal data. A telephone number in clear is refused; what must be provable later
// is given as a salted [Commitment], while the value and its salt lie elsewhere under a key that can be
// destroyed.
package audit
