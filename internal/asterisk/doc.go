// Package asterisk is the backend "asterisk": the gateway drives an Asterisk 18 or newer as a Stasis
// application over ARI, the Asterisk REST Interface.
//
// Asterisk keeps the wire: SIP, RTP, prompts, bridges. A call outlives this process there, so that a
// gateway that starts again finds its calls and goes on with them. Audio that is recorded or recognised
// comes here by Snoop and externalMedia as RTP in A-law, one stream a direction.
//
// From the library ari/v5 come the data types and the decoder of events. Its client is not used: it ends
// the process at an event that it does not know, loses events in a burst, knows neither contexts nor
// time-outs, and hides the status of an answer. What stands here instead is small: requests in rest.go, the
// one event connection in events.go. Events are handled in the order in which they came, by handlers that
// never block.
//
// Prompts are files: each clip is written once, as A-law, into a directory that Asterisk reads.
package asterisk
