// Package intake is the outbox to case intake: each event reaches each target at least once, and has
// its effect once.
//
// # The spool
//
// An event is durable when Submit returns: one file a target, synced and renamed into place. It leaves
// the spool only for a receipt, which is kept as well: what was received is never sent again, and an
// older revision never follows a newer one. The revisions of a request go one after the other; requests
// do not wait for one another. A delivery that fails is tried again, later each time, for a day; then
// the event lies among the dead and an alarm says so, until someone retries it.
//
//	<dir>/spool/<target>/<request>.<revision>.json     to be delivered
//	<dir>/dead/<target>/<request>.<revision>.json      given up
//	<dir>/receipts/<target>/<request>.json             the newest revision received
//
// # On the wire
//
// An event is a CloudEvent 1.0 in structured JSON. Its id is the request's ULID, a dot, and the revision;
// its type is request.urgent, request.recorded or request.amended; its subject is the request; its data
// is an [Event]. To a webhook it is POSTed with the headers of Standard Webhooks: webhook-id is the
// event's id and the key by which a receiver knows an event that it has seen.
//
// A receiver answers 2xx. If the event has a recording it fetches the sealed file from recording.url,
// and answers with the hash of what it fetched, {"sha256_sealed":"…"}: anything else is no receipt.
// The sealed file and data.sealed are opened with data.wrapped_key and the agency's key.
package intake
